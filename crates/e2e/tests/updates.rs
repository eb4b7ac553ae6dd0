//! Updates, restarts and networks: what the planner decides, seen by users. One lab for all.

use e2e::{Client, Lab, page, until};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_mins(1);

#[test]
fn what_changes_is_what_was_asked_for() {
    let lab = Lab::up(3, &["busybox"]);
    names_and_constraints_are_read_as_docker_does(&lab);
    addresses_come_from_the_range_and_run_out_aloud(&lab);
    a_removed_network_carries_tasks_that_still_stop(&lab);
    a_rejected_task_keeps_the_restart_delay(&lab);
    ports_and_spelled_out_defaults_replace_no_task(&lab);
    a_failed_start_first_update_leaves_good_tasks_alone(&lab);
    a_node_is_drained_with_pace(&lab);
    an_update_that_continues_moves_on(&lab);
    many_and_odd_variables_arrive_as_they_are(&lab);
    a_task_that_dies_at_once_is_asked_nothing(&lab);
    let left = lab.down();
    assert!(left.is_empty(), "{left:#?}");
}

/// Makes a service of a container that sleeps.
fn sleeper(lab: &Lab, name: &str, options: &[&str]) {
    let head = ["service", "create", "--detach", "--name", name];
    lab.docker(&[&head, options, &["busybox:latest", "sleep", "1000000"]].concat()).good();
}

/// Makes a service of containers that say "well" at a published port.
fn web(lab: &Lab, name: &str, port: u16, options: &[&str]) {
    let serve = "mkdir /w && echo well > /w/index.html && exec httpd -f -p 80 -h /w";
    let publish = format!("{port}:80");
    // By itself, the server does not hear that it should stop.
    let own = ["--publish", &publish, "--stop-signal", "SIGKILL"];
    let head = ["service", "create", "--detach", "--name", name];
    let image = ["busybox:latest", "sh", "-c", serve];
    lab.docker(&[&head[..], &own, options, &image].concat()).good();
}

fn update(lab: &Lab, service: &str, options: &[&str]) {
    lab.docker(&[&["service", "update", "--detach"], options, &[service]].concat()).good();
}

fn names_and_constraints_are_read_as_docker_does(lab: &Lab) {
    let create = |name: &str, option: &str| {
        lab.docker(&["service", "create", "--detach", "--name", name, option, "busybox:latest"])
    };
    for name in ["a.b.c", "dash-", "under_"] {
        let said = create(name, "--quiet").bad();
        assert!(said.contains("DNS name component"), "{said}");
    }
    assert!(create(&"x".repeat(64), "--quiet").bad().contains("63"));
    let said = lab.docker(&["network", "create", "--driver", "overlay", "a.b"]).bad();
    assert!(said.contains("DNS name component"), "{said}");
    let said = create("bad", "--constraint=node.labels.region==a,b").bad();
    assert!(said.contains("value 'a,b' is invalid"), "{said}");
    lab.docker(&["node", "update", "--label-add", "region=EU West", "node-2"]).good();
    sleeper(lab, "west", &["--constraint", "node.labels.region == eu west"]);
    lab.converged("west", "1/1", LIMIT);
    assert!(lab.history("west").starts_with("node-2 "), "{}", lab.history("west"));
    lab.docker(&["service", "rm", "west"]).good();
}

fn addresses_come_from_the_range_and_run_out_aloud(lab: &Lab) {
    let create = ["network", "create", "--driver", "overlay", "--subnet", "10.77.0.0/24"];
    let wrong = [&create[..], &["--aux-address", "own=10.77.0.1", "narrow"]].concat();
    let said = lab.docker(&wrong).bad();
    assert!(said.contains("10.77.0.1 is the gateway's"), "{said}");
    let kept = "kept=10.77.0.133";
    let range = ["--ip-range", "10.77.0.132/30", "--aux-address", kept, "narrow"];
    lab.docker(&[&create[..], &range].concat()).good();
    let ipam = "{{json .IPAM.Config}}";
    let ipam = lab.docker(&["network", "inspect", "--format", ipam, "narrow"]).good();
    assert!(ipam.contains("10.77.0.132/30") && ipam.contains("10.77.0.133"), "{ipam}");
    // The service has one address, two tasks have the others but for the one that is kept.
    sleeper(lab, "full", &["--network", "narrow", "--replicas", "3"]);
    until("the third task says what is missing", LIMIT, || {
        let said = lab.history("full");
        let told = said.contains("no free address in 10.77.0.132/30 (network narrow)");
        if told { Ok(()) } else { Err(said) }
    });
    lab.converged("full", "2/3", LIMIT);
    lab.docker(&["service", "rm", "full"]).good();
    lab.docker(&["network", "rm", "narrow"]).good();
}

fn a_removed_network_carries_tasks_that_still_stop(lab: &Lab) {
    let network = ["network", "create", "--driver", "overlay", "--subnet", "10.79.0.0/24", "soon"];
    let first = lab.docker(&network).good();
    let slow = "trap 'sleep 8; exit' TERM; while true; do sleep 0.1; done";
    for (name, node) in [("one", "node-1"), ("two", "node-2")] {
        let here = format!("node.hostname=={node}");
        let head = ["service", "create", "--detach", "--name", name, "--network", "soon"];
        let rest = ["--constraint", &here, "--stop-grace-period", "20s", "busybox:latest"];
        lab.docker(&[&head[..], &rest, &["sh", "-c", slow]].concat()).good();
    }
    lab.converged("one", "1/1", LIMIT);
    lab.converged("two", "1/1", LIMIT);
    let one = lab.containers(3, "one").remove(0);
    let template = "{{index (index .NetworksAttachments 0).Addresses 0}}";
    let inspect = ["inspect", "--type", "task", "--format", template, &lab.tasks("two")[0]];
    let address = lab.docker(&inspect).good();
    let ping = format!("ping -c 1 -W 2 {}", address.split('/').next().unwrap_or_default());
    until("the two reach each other", LIMIT, || {
        let shown = lab.inside(&one, &ping);
        if shown.ok { Ok(()) } else { Err(shown.out + &shown.err) }
    });
    lab.docker(&["service", "rm", "one", "two"]).good();
    lab.docker(&["network", "rm", "soon"]).good();
    // Both still stop, and the name is free at once.
    let second = lab.docker(&network).good();
    let listed = lab.docker(&["network", "ls", "-q", "--no-trunc", "--filter", "name=soon"]).good();
    assert_eq!(listed, second, "not {first}");
    lab.inside(&one, &ping).good();
    // The subnet comes when the first network has gone.
    sleeper(lab, "third", &["--network", "soon"]);
    lab.converged("third", "1/1", LIMIT);
    lab.docker(&["service", "rm", "third"]).good();
    lab.docker(&["network", "rm", "soon"]).good();
}

fn a_rejected_task_keeps_the_restart_delay(lab: &Lab) {
    let source = lab.folder().join("missing").display().to_string();
    let missing = format!("type=bind,source={source},target=/data");
    #[expect(clippy::disallowed_methods, reason = "how long it took is what is tested")]
    let start = Instant::now();
    sleeper(lab, "lost", &["--mount", &missing, "--restart-delay", "3s"]);
    // The second one is prepared at once and starts after the delay.
    until("four tries", LIMIT, || {
        let said = lab.history("lost");
        if said.matches("Rejected").count() >= 4 { Ok(()) } else { Err(said) }
    });
    assert!(start.elapsed() > Duration::from_secs(5), "{:?}", start.elapsed());
    let said = lab.history("lost");
    assert!(said.contains(&format!("bind source path does not exist: {source}")), "{said}");
    // Nobody made it; once it is there, the next try runs.
    std::fs::create_dir(&source).expect("it is not there yet");
    lab.converged("lost", "1/1", LIMIT);
    let container = lab.containers(3, "lost").remove(0);
    lab.inside(&container, "touch /data/x").good();
    assert!(lab.folder().join("missing/x").exists());
    lab.docker(&["service", "rm", "lost"]).good();
}

fn ports_and_spelled_out_defaults_replace_no_task(lab: &Lab) {
    web(lab, "web", 22320, &["--update-order", "start-first"]);
    lab.converged("web", "1/1", LIMIT);
    let before = lab.tasks("web");
    Lab::says(&lab.at(3, 22320), "/", "well", LIMIT);
    let client = Client::start(&lab.at(3, 22320), "/", 200);
    update(lab, "web", &["--publish-add", "22321:80"]);
    lab.update_ends("web", "completed", LIMIT);
    Lab::says(&lab.at(3, 22321), "/", "well", LIMIT);
    let seen = client.stop();
    assert!(seen.failures.is_empty(), "the old port failed: {:?}", seen.failures);
    let restart = ["--restart-condition", "any", "--restart-delay", "5s"];
    for defaults in [
        &["--replicas", "1", "--stop-grace-period", "10s"][..],
        &[&restart[..], &["--restart-max-attempts", "0"]].concat(),
        &["--update-order", "stop-first", "--update-parallelism", "1"],
        &[],
    ] {
        update(lab, "web", defaults);
    }
    let ingress = lab.docker(&["network", "inspect", "--format", "{{.Id}}", "ingress"]).good();
    let vips = lab.service("web", "{{range .Endpoint.VirtualIPs}}{{.NetworkID}} {{end}}");
    assert_eq!(vips, ingress.trim());
    // What is new shows that all updates were looked at, and that they replaced nothing.
    update(lab, "web", &["--replicas", "2"]);
    lab.converged("web", "2/2", LIMIT);
    assert_eq!(lab.history("web").lines().count(), 2, "{}", lab.history("web"));
    assert!(lab.tasks("web").contains(&before[0]));
    lab.docker(&["service", "rm", "web"]).good();
}

/// One update makes tasks that end at once, the other tasks that never become healthy.
fn a_failed_start_first_update_leaves_good_tasks_alone(lab: &Lab) {
    let action = ["--update-failure-action", "rollback", "--update-parallelism", "0"];
    let order = ["--update-order", "start-first", "--rollback-order", "start-first"];
    let pace = ["--update-delay", "2s", "--restart-delay", "1s", "--replicas", "2"];
    let all = [&action[..], &order, &pace].concat();
    let check = ["--health-cmd", "test -e /w/index.html", "--health-interval", "500ms"];
    let retries = ["--health-retries", "2"];
    web(lab, "good", 22330, &all);
    web(lab, "checked", 22331, &[&all[..], &check, &retries].concat());
    let watched = [("good", 22330), ("checked", 22331)].map(|(name, port)| {
        lab.converged(name, "2/2", LIMIT);
        Lab::says(&lab.at(3, port), "/", "well", LIMIT);
        (name, lab.tasks(name), Client::start(&lab.at(3, port), "/", 200))
    });
    update(lab, "good", &["--args", "sh -c 'exit 3'"]);
    update(lab, "checked", &["--health-cmd", "false"]);
    for (name, before, client) in watched {
        lab.update_ends(name, "rollback_completed", LIMIT);
        until("only the first tasks", LIMIT, || {
            let now = lab.tasks(name);
            if now == before { Ok(()) } else { Err(format!("{now:?} {}", lab.history(name))) }
        });
        for task in before {
            let inspect = ["inspect", "--type", "task", "--format", "{{.Status.State}}", &task];
            assert_eq!(lab.docker(&inspect).good().trim(), "running", "{}", lab.history(name));
        }
        let seen = client.stop();
        assert!(seen.failures.is_empty(), "{name}: {:?} of {}", seen.failures, seen.requests);
    }
    let args = "{{index .Spec.TaskTemplate.ContainerSpec.Args 0}}";
    assert_eq!(lab.service("good", args), "sh");
    let test = "{{index .Spec.TaskTemplate.ContainerSpec.Healthcheck.Test 1}}";
    assert_eq!(lab.service("checked", test), "test -e /w/index.html");
    lab.docker(&["service", "rm", "good", "checked"]).good();
}

/// Its tasks go one at a time, each once the next one serves: nobody who asks sees any of it.
fn a_node_is_drained_with_pace(lab: &Lab) {
    let check = ["--health-cmd", "test -e /w/index.html", "--health-interval", "500ms"];
    let pace = ["--replicas", "4", "--update-order", "start-first", "--update-delay", "1s"];
    web(lab, "paced", 22340, &[&check[..], &pace].concat());
    let global = ["service", "create", "--detach", "--mode", "global", "--name", "everywhere"];
    let sleep = ["--stop-grace-period", "1s", "busybox:latest", "sleep", "1000000"];
    lab.docker(&[&global[..], &sleep].concat()).good();
    lab.converged("paced", "4/4", LIMIT);
    lab.converged("everywhere", "3/3", LIMIT);
    let on_node_2 = |service: &str| {
        lab.containers(3, service).into_iter().filter(|(node, _)| *node == 2).count()
    };
    assert!(0 < on_node_2("paced"), "they are spread");
    Lab::says(&lab.at(2, 22340), "/", "well", LIMIT);
    let clients = [2, 3].map(|node| Client::start(&lab.at(node, 22340), "/", 200));
    let said = lab.skep(&["node", "update", "--availability", "active", "--paced", "node-2"]).bad();
    assert!(said.contains("--paced is for --availability drain"), "{said}");
    lab.skep(&["node", "update", "--availability", "drain", "--paced", "node-2"]).good();
    until("node-2 is empty", LIMIT, || {
        let count = ["service", "ls", "--filter", "name=paced", "--format", "{{.Replicas}}"];
        let count = lab.docker(&count).good();
        let running: u8 = count.split('/').next().and_then(|it| it.parse().ok()).expect("a number");
        assert!(4 <= running, "{count}");
        let (left, last) = (on_node_2("paced"), on_node_2("everywhere"));
        if (left, last) == (0, 0) { Ok(()) } else { Err(format!("{left} and {last} are left")) }
    });
    lab.converged("paced", "4/4", LIMIT);
    lab.skep(&["node", "update", "--availability", "active", "node-2"]).good();
    lab.converged("everywhere", "3/3", LIMIT);
    assert_eq!(on_node_2("paced"), 0, "what has moved stays");
    // But where the service asks for more.
    update(lab, "paced", &["--label-add", "skep.rebalance=on"]);
    until("node-2 has one again", LIMIT, || {
        let there: Vec<(u8, String)> = lab.containers(3, "paced");
        let is_there = there.len() == 4 && there.iter().any(|(node, _)| *node == 2);
        if is_there { Ok(()) } else { Err(format!("{there:?}")) }
    });
    for client in clients {
        let seen = client.stop();
        assert!(seen.failures.is_empty(), "{:?} of {}", seen.failures, seen.requests);
    }
    lab.docker(&["node", "update", "--label-rm", "skep.drain", "node-2"]).good();
    lab.docker(&["service", "rm", "paced", "everywhere"]).good();
}

fn an_update_that_continues_moves_on(lab: &Lab) {
    let action = ["--update-failure-action", "continue", "--restart-delay", "1s"];
    sleeper(lab, "on", &[&action[..], &["--replicas", "2"]].concat());
    lab.converged("on", "2/2", LIMIT);
    update(lab, "on", &["--mount-add", "type=bind,source=/tmp/skep-is-missing,target=/data"]);
    lab.update_ends("on", "completed", LIMIT);
    update(lab, "on", &["--mount-rm", "/data"]);
    lab.update_ends("on", "completed", LIMIT);
    lab.converged("on", "2/2", LIMIT);
    lab.docker(&["service", "rm", "on"]).good();
}

/// A thousand variables from a file, and values with everything that a shell or a template knows.
fn many_and_odd_variables_arrive_as_they_are(lab: &Lab) {
    let mut wanted: BTreeSet<String> =
        (0..1000).map(|n| format!("V{n}=value number {n}")).collect();
    let odd =
        ["U=grüße 🐝 日本", "Q=it's \"quoted\" & <b>\\n</b>", "EQ=a=b==c", "SP=  two spaces  "];
    wanted.extend(odd.map(str::to_owned));
    let shell = ["EMPTY=", "BS=C:\\dir\\$HOME `x` $(y)", "PCT=100% %s"];
    wanted.extend(shell.map(str::to_owned));
    let file = lab.folder().join("variables");
    let text: Vec<&str> = wanted.iter().map(String::as_str).collect();
    std::fs::write(&file, text.join("\n") + "\n").expect("a file");
    let templates = ["--env", "T={{.Service.Name}}-{{.Task.Slot}}", "--env", "L={{\"{{\"}}.Nope}}"];
    let file = file.display().to_string();
    let pace = ["--stop-grace-period", "1s", "--update-monitor", "1s", "--env-file", &file];
    sleeper(lab, "odd", &[&pace[..], &templates].concat());
    lab.converged("odd", "1/1", LIMIT);
    wanted.extend(["T=odd-1".to_owned(), "L={{.Nope}}".to_owned()]);
    let inside = || -> BTreeSet<String> {
        let container = lab.containers(3, "odd").remove(0);
        lab.inside(&container, "env").good().lines().map(str::to_owned).collect()
    };
    let missing: Vec<String> = wanted.difference(&inside()).cloned().collect();
    assert!(missing.is_empty(), "{missing:?}");
    for _ in 0..5 {
        update(lab, "odd", &[]);
    }
    update(lab, "odd", &["--env-add", "V500=changed", "--env-rm", "V501"]);
    lab.update_ends("odd", "completed", LIMIT);
    assert_eq!(lab.history("odd").lines().count(), 2, "one was replaced: {}", lab.history("odd"));
    assert!(wanted.remove("V501=value number 501") && wanted.remove("V500=value number 500"));
    wanted.insert("V500=changed".into());
    let now = inside();
    let missing: Vec<&String> = wanted.difference(&now).collect();
    assert!(missing.is_empty() && !now.iter().any(|line| line.starts_with("V501=")), "{missing:?}");
    lab.docker(&["service", "rm", "odd"]).good();
}

/// Beside tasks that serve, a new one that cannot run is led to by nobody.
fn a_task_that_dies_at_once_is_asked_nothing(lab: &Lab) {
    let options = ["--replicas", "2", "--publish", "8092:80", "--restart-delay", "200ms"];
    let update_options = ["--update-order", "start-first", "--update-parallelism", "0"];
    let image = ["busybox:latest", "httpd", "-f", "-p", "80"];
    let head = ["service", "create", "--detach", "--name", "asked"];
    lab.docker(&[&head[..], &options, &update_options, &image].concat()).good();
    lab.converged("asked", "2/2", LIMIT);
    let address = lab.at(3, 8092);
    until("node-3 answers", LIMIT, || {
        page(&address, "/", LIMIT).map(drop).map_err(|error| error.to_string())
    });
    update(lab, "asked", &["--args", "sh -c 'exit 3'"]);
    // Three or more of them die in the time.
    let died = || lab.history("asked").matches("non-zero exit (3)").count();
    let mut failed = Vec::new();
    until("several have died", LIMIT, || {
        let asked = (0..50).map(|_| page(&address, "/", Duration::from_secs(10)));
        failed.extend(asked.filter_map(Result::err));
        let died = died();
        if died < 6 { Err(died.to_string()) } else { Ok(()) }
    });
    assert!(failed.is_empty(), "{} requests failed: {:?}", failed.len(), failed.first());
    lab.docker(&["service", "rm", "asked"]).good();
}
