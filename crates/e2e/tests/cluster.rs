//! A cluster of small containers: what users do all day, what they get wrong, and what breaks.

use e2e::{Lab, page, until};
use std::time::Duration;

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

#[test]
fn small_services_live_a_day() {
    let lab = Lab::up(3, &["busybox", "nginx"]);
    services_come_and_scale(&lab);
    logs_are_kept_apart(&lab);
    commands_run_inside(&lab);
    plain_containers_run(&lab);
    clients_keep_their_address(&lab);
    tasks_restart_as_the_policy_says(&lab);
    constraints_are_honoured_and_explained(&lab);
    what_a_daemon_is_started_with_is_known_of_its_node(&lab);
    updates_replace_tasks(&lab);
    drained_nodes_are_emptied(&lab);
    mistakes_are_told(&lab);
    what_cannot_be_is_explained(&lab);
    joins_are_guarded(&lab);
    unknown_endpoints_say_what_is_missing(&lab);
    skep_speaks_the_same_verbs(&lab);
    a_daemon_killed_again_and_again_loses_nothing(&lab);
    let left = lab.down();
    assert!(left.is_empty(), "{left:#?}");
}

fn services_come_and_scale(lab: &Lab) {
    lab.docker(&["network", "create", "--driver", "overlay", "net"]).good();
    let out = lab
        .docker(&[
            "service",
            "create",
            "--name",
            "web",
            "--network",
            "net",
            "--publish",
            "8090:80",
            "--replicas",
            "2",
            "--stop-grace-period",
            "2s",
            "nginx:latest",
        ])
        .good();
    assert!(out.contains("Service converged") || out.contains("verify"), "{out}");
    lab.converged("web", "2/2", secs(60));
    lab.docker(&["service", "scale", "web=3"]).good();
    lab.converged("web", "3/3", secs(60));
    let mut nodes: Vec<u8> = lab.containers(3, "web").into_iter().map(|(node, _)| node).collect();
    nodes.sort_unstable();
    assert_eq!(nodes, [1, 2, 3], "one task a node");
    for address in [lab.localhost(8090), lab.at(1, 8090), lab.at(3, 8090)] {
        until(&address, secs(20), || match page(&address, "/", secs(5)) {
            Ok(page) if page.status == 200 => Ok(()),
            other => Err(format!("{other:?}")),
        });
    }
    let inspect = lab.docker(&["service", "inspect", "--pretty", "web"]).good();
    assert!(inspect.contains("PublishedPort = 8090"), "{inspect}");
    let address = lab
        .docker(&[
            "service",
            "inspect",
            "--format",
            "{{(index .Endpoint.VirtualIPs 0).Addr}}",
            "web",
        ])
        .good();
    assert!(address.starts_with("10.0.1."), "{address}");
    let network = lab.docker(&["network", "inspect", "net"]).good();
    assert!(network.contains("10.0.1.0/24"), "{network}");
    let ps = lab.docker(&["service", "ps", "web"]).good();
    assert_eq!(ps.matches("Running").count(), 6, "{ps}");
    let node = lab.docker(&["node", "ps", "node-2"]).good();
    assert!(node.contains("web."), "{node}");
}

/// Streams, lines and bytes stay what they are, of a terminal too.
fn logs_are_kept_apart(lab: &Lab) {
    let talk = |name: &str, option: &str, script: &str| {
        let create = ["service", "create", "--detach", "--stop-grace-period", "1s", "--name"];
        let run = ["busybox:latest", "sh", "-c", script];
        lab.docker(&[&create[..], &[name, option], &run].concat()).good();
    };
    let odd = r"head -c 40000 /dev/zero | tr '\000' x; printf 'END\na\001b\000c\377d\n'
        printf 'gr\303\274n\ttab \033[1mbold\033[0m\n  \nto-out\n'; echo to-err >&2
        exec sleep 1000000";
    talk("talker", "--quiet", odd);
    talk("screen", "--tty", "echo one; echo two >&2; exec sleep 1000000");
    // The byte that is no text is shown by its sign, here or by the command.
    let rest = "END\na\u{1}b\0c\u{fffd}d\ngrün\ttab \u{1b}[1mbold\u{1b}[0m\n  \nto-out\n";
    let wanted = "x".repeat(40_000) + rest;
    until("both streams", secs(60), || {
        let shown = lab.docker(&["service", "logs", "--raw", "talker"]);
        let apart = shown.out == wanted && shown.err == "to-err\n";
        if apart { Ok(()) } else { Err(format!("{shown:?}")) }
    });
    until("the terminal's lines", secs(60), || {
        let shown = lab.docker(&["service", "logs", "--raw", "screen"]);
        if shown.out == "one\r\ntwo\r\n" { Ok(()) } else { Err(format!("{shown:?}")) }
    });
    let stamped = lab.docker(&["service", "logs", "--raw", "--timestamps", "talker"]).good();
    assert!(stamped.lines().all(|line| line.matches("Z ").count() == 1), "{stamped}");
    let (node, id) = lab.containers(3, "talker").remove(0);
    let shown = lab.docker_at(node, &["logs", "--timestamps", "--tail", "1", &id]);
    let lines = shown.out + &shown.err;
    assert_eq!(lines.lines().count(), 1, "{lines}");
    assert!(lines.starts_with("20"), "{lines}");
    lab.docker(&["service", "rm", "talker", "screen"]).good();
}

fn commands_run_inside(lab: &Lab) {
    let container = lab.containers(3, "web").remove(0);
    assert_eq!(lab.inside(&container, "echo $((6*7))").good().trim(), "42");
    let failed = lab.docker_at(container.0, &["exec", &container.1, "sh", "-c", "exit 7"]);
    assert!(!failed.ok);
    let found = lab.inside(&container, "getent hosts tasks.web").good();
    assert!(found.contains("10.0.1."), "{found}");
}

fn plain_containers_run(lab: &Lab) {
    let run = |arguments: &[&str]| {
        let all = [&["run", "--rm"], arguments].concat();
        lab.docker(&all)
    };
    assert_eq!(run(&["busybox:latest", "echo", "hi"]).good().trim(), "hi");
    let limits = ["--memory", "64m", "--cpus", "0.5", "--user", "1000:1000", "--hostname", "h"];
    let command = ["busybox:latest", "sh", "-c", "hostname; id -u"];
    assert_eq!(run(&[&limits[..], &command].concat()).good().trim(), "h\n1000");
    let missing = run(&["busybox:latest", "no-such-program"]).bad();
    assert!(missing.contains("executable file not found"), "{missing}");
    let refused = run(&["--cpu-quota", "25000", "busybox:latest", "true"]).bad();
    assert!(refused.contains("HostConfig.CpuQuota"), "{refused}");
    let nowhere = run(&["no-such-image:latest", "true"]).bad();
    assert!(nowhere.contains("no-such-image"), "{nowhere}");
    let left = lab.docker(&["ps", "--all", "--quiet", "--filter", "is-task=false"]).good();
    assert_eq!(left, "", "--rm leaves nothing");
}

fn clients_keep_their_address(lab: &Lab) {
    // The machine is a client on the underlay; it enters by a node whose task may be elsewhere.
    for _ in 0..6 {
        page(&lab.at(2, 8090), "/", secs(5)).expect("it answers");
    }
    let client = format!("{} - ", lab.address(0));
    until("the client's own address in every log", secs(20), || {
        let shown = lab.docker(&["service", "logs", "--raw", "web"]);
        let seen = shown.out.matches(&client).count();
        if seen >= 6 { Ok(()) } else { Err(shown.out) }
    });
}

fn tasks_restart_as_the_policy_says(lab: &Lab) {
    lab.docker(&[
        "service",
        "create",
        "--detach",
        "--name",
        "fails",
        "--restart-condition",
        "on-failure",
        "--restart-delay",
        "100ms",
        "--restart-max-attempts",
        "2",
        "busybox:latest",
        "sh",
        "-c",
        "exit 3",
    ])
    .good();
    until("three failures and no more", secs(60), || {
        let shown = lab.docker(&["service", "ps", "--no-trunc", "fails"]).good();
        let failed = shown.matches("Failed").count();
        if failed == 3 && shown.contains("non-zero exit (3)") { Ok(()) } else { Err(shown) }
    });
    lab.docker(&[
        "service",
        "create",
        "--detach",
        "--name",
        "once",
        "--restart-condition",
        "none",
        "busybox:latest",
        "true",
    ])
    .good();
    until("it is complete", secs(60), || {
        let shown = lab.docker(&["service", "ps", "once"]).good();
        if shown.contains("Complete") { Ok(()) } else { Err(shown) }
    });
    lab.docker(&["service", "rm", "fails", "once"]).good();
    // Who gives no name gets one.
    let id = lab.docker(&["service", "create", "--detach", "busybox:latest", "true"]).good();
    let name = lab.docker(&["service", "inspect", "--format", "{{.Spec.Name}}", id.trim()]).good();
    assert!(name.trim().contains('_'), "{name}");
    lab.docker(&["service", "rm", name.trim()]).good();
}

fn constraints_are_honoured_and_explained(lab: &Lab) {
    lab.docker(&[
        "service",
        "create",
        "--detach",
        "--name",
        "picky",
        "--constraint",
        "node.labels.disk==ssd",
        "--stop-grace-period",
        "1s",
        "busybox:latest",
        "sleep",
        "1000000",
    ])
    .good();
    until("the reason why it waits", secs(20), || {
        let shown = lab.docker(&["service", "ps", "--no-trunc", "picky"]).good();
        let words = [
            "Pending",
            "no suitable node (scheduling constraints not satisfied on 3 nodes). ",
            "node-1: node.labels.disk==ssd is missing; node-2: node.labels.disk==ssd is missing; ",
        ];
        if words.iter().all(|word| shown.contains(word)) { Ok(()) } else { Err(shown) }
    });
    lab.docker(&["node", "update", "--label-add", "disk=hdd", "node-2"]).good();
    lab.docker(&["node", "update", "--availability", "pause", "node-1"]).good();
    until("each node says what it lacks now", secs(20), || {
        let shown = lab.skep(&["service", "ps", "--no-trunc", "picky"]).good();
        let words = "). node-2: node.labels.disk is hdd, not ssd; \
                     node-3: node.labels.disk==ssd is missing; node-1: is paused";
        if shown.contains(words) { Ok(()) } else { Err(shown) }
    });
    lab.docker(&["node", "update", "--availability", "active", "node-1"]).good();
    lab.docker(&["node", "update", "--label-rm", "disk", "node-2"]).good();
    let either = format!("node.labels.disk=={{nvme,ssd}} || node.ip=={}/32", lab.address(2));
    let either = ["--constraint", &either];
    let head = ["service", "create", "--detach", "--name", "either"];
    let sleep = ["--stop-grace-period", "1s", "busybox:latest", "sleep", "1000000"];
    lab.docker(&[&head[..], &either, &sleep].concat()).good();
    lab.converged("either", "1/1", secs(60));
    assert_eq!(lab.containers(3, "either")[0].0, 2);
    lab.docker(&["service", "rm", "either"]).good();
    let head = ["service", "create", "--detach", "--name", "greedy", "--reserve-cpu", "4000"];
    lab.docker(&[&head[..], &["busybox:latest", "sleep", "1000000"]].concat()).good();
    let error = "{{.Status.Err}}";
    until("what is free is said", secs(20), || {
        let task = lab.tasks("greedy").join(" ");
        let said = lab.docker(&["inspect", "--type", "task", "--format", error, &task]).out;
        let cores: Option<(f64, f64)> = said.split("node-3: ").nth(1).and_then(|rest| {
            let (free, all) = rest.split_once(" cores free")?.0.split_once(" of ")?;
            Some((free.parse().ok()?, all.parse().ok()?))
        });
        let is_so = cores.is_some_and(|(free, all)| 0.0 < free && free <= all && all < 4000.0);
        let docker = said.starts_with("no suitable node (insufficient resources on 3 nodes). ");
        if is_so && docker { Ok(()) } else { Err(said) }
    });
    lab.docker(&["service", "rm", "greedy"]).good();
    lab.docker(&["node", "update", "--label-add", "disk=ssd", "node-3"]).good();
    lab.converged("picky", "1/1", secs(60));
    assert_eq!(lab.containers(3, "picky")[0].0, 3);
    lab.docker(&["service", "rm", "picky"]).good();
}

fn what_a_daemon_is_started_with_is_known_of_its_node(lab: &Lab) {
    let create = ["service", "create", "--detach", "--name", "picky", "--replicas", "2"];
    let where_and_what =
        ["--constraint", "engine.labels.disk==nvme", "busybox:latest", "sleep", "1000000"];
    lab.docker(&[&create[..], &where_and_what].concat()).good();
    lab.lab(&["kill", "node-3"]).good();
    let refused = lab.lab(&["start", "node-3", "--", "--label", "com.docker.x=1"]).bad();
    assert!(refused.contains("node-3"), "{refused}");
    lab.lab(&["start", "node-3", "--", "--label", "disk=nvme", "--label", "rack=7"]).good();
    lab.converged("picky", "2/2", secs(60));
    assert!(lab.containers(3, "picky").iter().all(|(node, _)| *node == 3));
    let format = "{{json .Description.Engine.Labels}} {{.Description.Engine.Plugins}}";
    let shown = lab.docker(&["node", "inspect", "--format", format, "node-3"]).good();
    let plugins = "{Log fluentd} {Log gelf} {Log journald} {Log json-file} {Log local} {Log syslog} \
                   {Network bridge} {Network host} {Network null} {Network overlay} {Volume local}";
    assert_eq!(shown.trim(), format!(r#"{{"disk":"nvme","rack":"7"}} [{plugins}]"#));
    let pretty = lab.docker(&["node", "inspect", "--pretty", "node-3"]).good();
    assert!(pretty.contains("Engine Labels:\n - disk=nvme\n - rack=7"), "{pretty}");
    let info = lab.docker_at(3, &["info", "--format", "{{json .Labels}}"]).good();
    assert_eq!(info.trim(), r#"["disk=nvme","rack=7"]"#);
    let found = lab.docker(&["node", "ls", "--quiet", "--filter", "label=rack=7"]).good();
    assert_eq!(found.lines().count(), 1, "{found}");
    lab.docker(&["service", "rm", "picky"]).good();
}

fn updates_replace_tasks(lab: &Lab) {
    let before = lab.containers(3, "web");
    lab.docker(&[
        "service",
        "update",
        "--env-add",
        "COLOUR=blue",
        "--update-parallelism",
        "0",
        "web",
    ])
    .good();
    lab.converged("web", "3/3", secs(60));
    until("every container is new", secs(60), || {
        let now = lab.containers(3, "web");
        let new = now.len() == 3 && now.iter().all(|container| !before.contains(container));
        if new { Ok(()) } else { Err(format!("{now:?}")) }
    });
    let container = lab.containers(3, "web").remove(0);
    assert_eq!(lab.inside(&container, "echo $COLOUR").good().trim(), "blue");
}

fn drained_nodes_are_emptied(lab: &Lab) {
    lab.docker(&["node", "update", "--availability", "drain", "node-2"]).good();
    until("node-2 is empty", secs(60), || {
        let all = lab.containers(3, "web");
        let empty = all.len() == 3 && all.iter().all(|(node, _)| *node != 2);
        if empty { Ok(()) } else { Err(format!("{all:?}")) }
    });
    lab.docker(&["node", "update", "--availability", "active", "node-2"]).good();
}

fn mistakes_are_told(lab: &Lab) {
    let said = |arguments: &[&str], words: &[&str]| {
        let message = lab.docker(arguments).bad();
        assert!(words.iter().all(|word| message.contains(word)), "{arguments:?}: {message}");
    };
    said(
        &["service", "create", "--detach", "--name", "web", "busybox:latest"],
        &["service web already exists"],
    );
    said(
        &[
            "service",
            "create",
            "--detach",
            "--name",
            "other",
            "--publish",
            "8090:80",
            "busybox:latest",
        ],
        &["port '8090' is already in use by service 'web'"],
    );
    said(
        &[
            "service",
            "create",
            "--detach",
            "--name",
            "other",
            "--publish",
            "2377:80",
            "busybox:latest",
        ],
        &["port '2377' is already in use by the cluster's managers"],
    );
    said(&["network", "create", "--driver", "overlay", "net"], &["net already exists"]);
    said(
        &["network", "create", "--driver", "overlay", "--subnet", "10.0.1.0/25", "near"],
        &["Pool overlaps with other one on this address space"],
    );
    said(&["network", "rm", "net"], &["net", "in use by service"]);
    said(
        &["service", "create", "--detach", "--name", "x", "--network", "nowhere", "busybox:latest"],
        &["network nowhere not found"],
    );
    said(
        &[
            "service",
            "create",
            "--detach",
            "--name",
            "x",
            "--constraint",
            "rack==1",
            "busybox:latest",
        ],
        &["constraint"],
    );
    said(&["service", "inspect", "nothing"], &["no such service"]);
    said(&["service", "rm", "nothing"], &["service nothing not found"]);
    let first = lab.address(1).to_string();
    said(&["swarm", "init", "--advertise-addr", &first], &["already part of a swarm"]);
    said(&["swarm", "leave"], &["participating as a manager"]);
}

fn what_cannot_be_is_explained(lab: &Lab) {
    // An image that is nowhere: the task says why.
    lab.docker(&["service", "create", "--detach", "--name", "ghost", "no-such-image:latest"])
        .good();
    until("the task says which image is missing", secs(60), || {
        let shown = lab.docker(&["service", "ps", "--no-trunc", "ghost"]).good();
        let told = shown.contains("Rejected") && shown.contains("no-such-image");
        if told { Ok(()) } else { Err(shown) }
    });
    lab.docker(&["service", "rm", "ghost"]).good();
    // A worker shows nothing of the cluster and says who does.
    lab.make_worker(3);
    let worker = lab.docker_at(3, &["service", "ls"]).bad();
    assert!(worker.contains("This node is not a swarm manager"), "{worker}");
    let stack = lab.docker_at(3, &["stack", "ls"]).bad();
    assert!(stack.contains("This node is not a swarm manager"), "{stack}");
}

/// Node-3 is a worker.
fn joins_are_guarded(lab: &Lab) {
    let token = lab.docker(&["swarm", "join-token", "-q", "worker"]).good().trim().to_owned();
    assert!(token.starts_with("SWMTKN-1-"), "{token}");
    let manager = lab.at(1, 2377);
    let again = lab.docker_at(2, &["swarm", "join", "--token", &token, &manager]).bad();
    assert!(again.contains("already part of a swarm"), "{again}");
    lab.docker_at(3, &["swarm", "leave"]).good();
    until("node-3 is down", secs(30), || {
        let table = lab.docker(&["node", "ls"]).good();
        let down = table.lines().any(|line| line.contains("node-3") && line.contains("Down"));
        if down { Ok(()) } else { Err(table) }
    });
    let join = |token: &str| lab.docker_at(3, &["swarm", "join", "--token", token, &manager]);
    assert!(join("SWMTKN-1-nonsense").bad().contains("invalid join token"));
    let mut wrong = token.clone();
    let last = if wrong.ends_with('0') { "1" } else { "0" };
    wrong.replace_range(wrong.len() - 1.., last);
    let refused = join(&wrong).bad();
    assert!(refused.contains("a valid join token is necessary"), "{refused}");
    let out = join(&token).good();
    assert!(out.contains("This node joined a swarm as a worker."), "{out}");
    let id = lab.docker(&["node", "ls", "--format", "{{.ID}} {{.Status}}"]).good();
    let old = id.lines().find(|line| line.ends_with("Down")).expect("the old one is listed");
    lab.docker(&["node", "rm", old.split(' ').next().unwrap_or_default()]).good();
    lab.converged("web", "3/3", secs(60));
}

fn unknown_endpoints_say_what_is_missing(lab: &Lab) {
    let build = lab.docker(&["commit", "nothing"]).bad();
    assert!(build.contains("not supported by skep"), "{build}");
    let push = lab.docker(&["push", "busybox:latest"]).bad();
    assert!(push.contains("not supported by skep"), "{push}");
}

fn skep_speaks_the_same_verbs(lab: &Lab) {
    let words = |text: String| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    for verb in [&["service", "ls"][..], &["network", "ls"], &["stack", "ls"]] {
        assert_eq!(words(lab.skep(verb).good()), words(lab.docker(verb).good()), "{verb:?}");
    }
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("stack.yml");
    let path = file.display().to_string();
    let deploy = |text: &str| {
        std::fs::write(&file, text).expect("a stack file");
        lab.skep(&["stack", "deploy", "--compose-file", &path, "small"])
    };
    let broken = deploy("services:\n  a:\n    image: [\n").bad();
    assert!(broken.contains("stack.yml:"), "a line is named: {broken}");
    let unknown = deploy("services:\n  a:\n    imagee: busybox\n").bad();
    assert!(unknown.contains("stack.yml:3") && unknown.contains("imagee"), "{unknown}");
    let out = deploy(
        "services:\n  a:\n    image: busybox:latest\n    command: sleep 1000000\n    stop_grace_period: 1s\n",
    )
    .good();
    assert!(out.contains("Creating service small_a"), "{out}");
    lab.converged("small_a", "1/1", secs(60));
    let services = lab.skep(&["stack", "services", "small"]).good();
    assert!(services.contains("small_a") && services.contains("1/1"), "{services}");
    // It does not hear the first signal: its grace is waited for.
    lab.skep(&["stack", "rm", "--detach=false", "small"]).good();
    assert_eq!(lab.containers(3, "small_a"), []);
    // Of several, one that fails does not keep the others.
    let create = ["service", "create", "--detach", "--replicas", "0", "--name"];
    for name in ["one", "other"] {
        lab.skep(&[&create[..], &[name, "busybox:latest"]].concat()).good();
    }
    let shown = lab.skep(&["service", "rm", "one", "nothing", "other"]);
    assert!(!shown.ok && shown.err.contains("nothing"), "{shown:?}");
    assert_eq!(words(shown.out), ["one", "other"]);
    let left = lab.skep(&["service", "ls", "--filter", "name=o", "--quiet"]).good();
    assert_eq!(left, "");
}

fn a_daemon_killed_again_and_again_loses_nothing(lab: &Lab) {
    let before = lab.containers(3, "web");
    for round in 0..5 {
        let name = format!("round-{round}");
        lab.docker(&["network", "create", "--driver", "overlay", &name]).good();
        lab.lab(&["kill", "node-1"]).good();
        lab.lab(&["start", "node-1"]).good();
        until("what was acknowledged is there", secs(10), || {
            let shown = lab.docker(&["network", "ls"]);
            if shown.out.contains(&name) { Ok(()) } else { Err(shown.out + &shown.err) }
        });
    }
    lab.converged("web", "3/3", secs(60));
    assert_eq!(lab.containers(3, "web"), before, "no container was touched");
}
