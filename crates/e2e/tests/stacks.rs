//! Stack files as people write them (`stacks/`): deployed by the docker CLI, looked at from all
//! sides, and deployed again by skep's own, which must read the same in them.

use e2e::{Lab, Shown, page, until};
use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

const NODES: u8 = 3;

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// A deployed stack.
struct Stack<'a> {
    lab: &'a Lab,
    name: &'a str,
}

impl<'a> Stack<'a> {
    /// Deploys the file of this name, and waits for its services: name and replicas.
    fn deploy(lab: &'a Lab, name: &'a str, services: &[(&str, &str)]) -> Self {
        let stack = Self { lab, name };
        let file = stack.file();
        let deploy = ["stack", "deploy", "--detach=true", "--resolve-image=never"];
        lab.docker(&[&deploy[..], &["--compose-file", &file, name]].concat()).good();
        for (service, replicas) in services {
            lab.converged(&stack.service(service), replicas, secs(60));
        }
        stack
    }

    fn file(&self) -> String {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("stacks");
        folder.join(format!("{}.yml", self.name)).display().to_string()
    }

    fn service(&self, service: &str) -> String {
        format!("{}_{service}", self.name)
    }

    /// What `docker service inspect --format` shows.
    fn inspect(&self, service: &str, template: &str) -> String {
        self.lab.service(&self.service(service), template)
    }

    /// The nodes that a service runs on.
    fn nodes(&self, service: &str) -> BTreeSet<u8> {
        let containers = self.lab.containers(NODES, &self.service(service));
        containers.into_iter().map(|(node, _)| node).collect()
    }

    /// Runs a command in some container of a service.
    fn inside(&self, service: &str, command: &str) -> Shown {
        let container = self.lab.containers(NODES, &self.service(service)).remove(0);
        self.lab.inside(&container, command)
    }

    /// A variable of a service's container; `None` where it is not set.
    fn variable(&self, service: &str, name: &str) -> Option<String> {
        let shown = self.inside(service, &format!("env | grep '^{name}='"));
        Some(shown.out.trim().split_once('=')?.1.to_owned())
    }

    /// Every task that ever was, running or not.
    fn tasks(&self) -> BTreeSet<String> {
        let ps = ["stack", "ps", "--quiet", "--no-trunc", self.name];
        self.lab.docker(&ps).good().lines().map(str::to_owned).collect()
    }

    /// Deploys the same by skep's own reader, which must change nothing; then removes it.
    fn reads_the_same_and_goes(self) {
        let before = self.tasks();
        let file = self.file();
        let deploy = ["stack", "deploy", "--resolve-image=never", "--compose-file", &file];
        self.lab.skep(&[&deploy[..], &[self.name]].concat()).good();
        assert_eq!(self.tasks(), before, "{}: skep's reader reads something else", self.name);
        self.lab.docker(&["stack", "rm", self.name]).good();
        until("nothing is left of the stack", secs(60), || {
            let label = format!("label=com.docker.stack.namespace={}", self.name);
            let left: Vec<String> = ["service", "network"]
                .into_iter()
                .map(|kind| self.lab.docker(&[kind, "ls", "--quiet", "--filter", &label]).good())
                .collect();
            if left.concat().is_empty() { Ok(()) } else { Err(left.concat()) }
        });
    }
}

/// The nodes that are no managers: node-3, and node-2 in a lab of one manager.
fn workers(lab: &Lab) -> BTreeSet<u8> {
    let roles = ["node", "ls", "--filter", "role=worker", "--format", "{{.Hostname}}"];
    let names = lab.docker(&roles).good();
    names.lines().filter_map(|name| name.strip_prefix("node-")?.parse().ok()).collect()
}

/// Waits until a page answers there, with these words in it.
fn says(address: &str, path: &str, words: &str) {
    Lab::says(address, path, words, secs(20));
}

#[test]
fn stack_files_of_people_run_and_are_read_the_same_by_skep() {
    let lab = Lab::up(NODES, &["busybox", "nginx"]);
    lab.make_worker(3);
    an_application_of_several_parts(&lab);
    agents_everywhere_and_a_desk(&lab);
    variables_of_every_kind(&lab);
    proxies_with_ports_of_their_nodes(&lab);
    what_a_later_version_brings_is_refused_by_name(&lab);
    the_same_in_another_order_restarts_nothing(&lab);
    a_stack_of_several_files(&lab);
    stacks_that_come_and_go_at_once(&lab);
}

fn an_application_of_several_parts(lab: &Lab) {
    let services = [("queue", "2/2"), ("store", "1/1"), ("ballots", "2/2"), ("mover", "1/1")];
    let stack = Stack::deploy(lab, "poll", &services);
    let ports = ["service", "ls", "--filter", "name=poll_queue", "--format", "{{.Ports}}"];
    let ports = lab.docker(&ports).good();
    assert!(ports.starts_with("*:3") && ports.trim().ends_with("->6380/tcp"), "{ports}");
    for node in 1..=NODES {
        says(&lab.at(node, 8101), "/who", "ballots on");
    }
    assert!(stack.nodes("store").is_disjoint(&workers(lab)), "it runs on a manager");
    let mount = "{{(index .Spec.TaskTemplate.ContainerSpec.Mounts 0).Source}}";
    assert_eq!(stack.inspect("store", mount), "poll_chest");
    let networks = r#"{{len .Spec.TaskTemplate.Networks}} {{index .Spec.Labels "APP"}}"#;
    assert_eq!(stack.inspect("mover", networks), "2 POLL");
    let policy =
        "{{with .Spec.TaskTemplate.RestartPolicy}}{{.Condition}} {{.Delay}} {{.Window}}{{end}}";
    assert_eq!(stack.inspect("mover", policy), "on-failure 10s 2m0s");
    let grace = "{{.Spec.TaskTemplate.ContainerSpec.StopGracePeriod}}";
    assert_eq!(stack.inspect("mover", grace), "1m30s");
    let env = "{{json .Spec.TaskTemplate.ContainerSpec.Env}}";
    assert_eq!(
        stack.inspect("mover", env),
        r#"["DAYS=7","SECURE=false","STORE=tcp://store:5432"]"#
    );
    stack.inside("mover", "nslookup -type=a queue 127.0.0.11").good();
    stack.inside("mover", "nslookup -type=a store 127.0.0.11").good();
    stack.reads_the_same_and_goes();
}

fn agents_everywhere_and_a_desk(lab: &Lab) {
    lab.docker(&["node", "update", "--label-add", "desk.desk-data=true", "node-2"]).good();
    let stack = Stack::deploy(lab, "agents", &[("agent", "3/3"), ("desk", "1/1")]);
    assert_eq!(stack.nodes("agent"), [1, 2, 3].into());
    assert_eq!(stack.nodes("desk"), [2].into());
    until("all agents by one name", secs(15), || {
        let asked = "nslookup -type=a tasks.agent 127.0.0.11 | grep -c '^Address.*10[.]'";
        let shown = stack.inside("desk", asked);
        if shown.out.trim() == "3" { Ok(()) } else { Err(format!("{shown:?}")) }
    });
    assert_eq!(stack.variable("agent", "PEERS").as_deref(), Some("tasks.agent"));
    assert!(stack.inside("agent", "cat /agent/release").good().contains("NAME="));
    assert!(!stack.inside("agent", "touch /agent/release").ok, "it is mounted for reading");
    says(&lab.at(3, 8110), "/ok", "desk");
    says(&lab.at(1, 8111), "/ok", "desk");
    let network =
        ["network", "inspect", "--format", "{{.Attachable}} {{.Driver}}", "agents_agents"];
    assert_eq!(lab.docker(&network).good().trim(), "true overlay");
    stack.reads_the_same_and_goes();
    lab.docker(&["node", "update", "--label-rm", "desk.desk-data", "node-2"]).good();
}

fn variables_of_every_kind(lab: &Lab) {
    let stack = Stack::deploy(lab, "settings", &[("name", "1/1"), ("data", "1/1")]);
    let is = |service: &str, name: &str, value: Option<&str>| {
        assert_eq!(stack.variable(service, name).as_deref(), value, "{service} {name}");
    };
    is("data", "CORE_SITE_fs___default", Some("hdfs://name:8020"));
    is("data", "PRECONDITION", Some("name:50070 jobs:8088"));
    is("data", "OVERRIDDEN", Some("by-file"));
    is("name", "OVERRIDDEN", Some("by-list"));
    is("name", "QUOTED", Some("\"as it is written\""));
    // The shell has it: cargo sets it for tests.
    is("data", "CARGO_PKG_NAME", Some("e2e"));
    is("data", "E2E_NOT_SET", None);
    stack.reads_the_same_and_goes();
}

fn proxies_with_ports_of_their_nodes(lab: &Lab) {
    let workers = workers(lab);
    let everywhere = format!("{0}/{0}", workers.len());
    let stack = Stack::deploy(lab, "edge", &[("edge", &everywhere), ("site", "2/2")]);
    assert_eq!(stack.nodes("edge"), workers);
    for node in workers {
        says(&lab.at(node, 8120), "/who", &format!("node-{node}"));
    }
    assert!(page(&lab.at(1, 8120), "/who", secs(5)).is_err(), "no task there, no port");
    for node in 1..=NODES {
        says(&lab.at(node, 8121), "/", "nginx");
    }
    let pattern = stack.variable("edge", "PATTERN");
    assert_eq!(pattern.as_deref(), Some("https://edge.example/vod/%s.mp4"));
    let policy = "{{with .Spec.UpdateConfig}}{{.Parallelism}} {{.Delay}} {{.Order}} {{.FailureAction}} \
                  {{.Monitor}} {{.MaxFailureRatio}}{{end}} {{.Spec.RollbackConfig.FailureAction}}";
    assert_eq!(stack.inspect("site", policy), "0 1.5s start-first rollback 1m0s 0.3 continue");
    let ports = "{{range .Spec.EndpointSpec.Ports}}{{.PublishedPort}} {{.PublishMode}} {{end}}";
    let ports = stack.inspect("site", ports);
    assert!(ports.contains("8121 ingress") && ports.contains("8122 host"), "{ports}");
    let log = r#"{{index .Spec.TaskTemplate.LogDriver.Options "max-size"}}"#;
    assert_eq!(stack.inspect("edge", log), "1m");
    let networks = lab.docker(&["network", "ls", "--format", "{{.Name}}"]).good();
    assert!(networks.lines().any(|name| name == "edge-net"), "{networks}");
    assert!(!networks.contains("nobodys"), "a network that nobody uses is not made: {networks}");
    stack.reads_the_same_and_goes();
}

fn what_a_later_version_brings_is_refused_by_name(lab: &Lab) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("stack.yml");
    std::fs::write(folder.path().join("word"), "sesame").expect("a file");
    let path = file.display().to_string();
    let service = "image: busybox:latest\n    command: \"true\"\n";
    for (feature, of_service, rest) in [
        ("driver", "    secrets: [word]\n", "secrets: {word: {driver: vault}}\n"),
        (
            "encrypted",
            "    networks: [n]\n",
            "networks: {n: {driver_opts: {encrypted: \"true\"}}}\n",
        ),
    ] {
        let text = format!("version: \"3.8\"\nservices:\n  a:\n    {service}{of_service}{rest}");
        std::fs::write(&file, text).expect("a stack file");
        let deploy = ["stack", "deploy", "--detach=true", "--compose-file", &path, "later"];
        let said = lab.docker(&deploy).bad().to_lowercase();
        assert!(
            said.replace(' ', "").contains(&feature.replace(' ', ""))
                && said.contains("not supported by skep"),
            "{feature}: {said}"
        );
        let own = lab.skep(&["stack", "deploy", "--compose-file", &path, "later"]).bad();
        let said = own.to_lowercase().replace('_', " ").replace('"', "");
        assert!(said.contains(feature.trim_end_matches("ed")), "{feature}: {own}");
        assert!(own.contains("stack.yml:"), "the line is named: {own}");
        lab.docker(&["stack", "rm", "later"]);
        let left = lab.docker(&["service", "ls", "--quiet", "--filter", "name=later"]).good();
        assert_eq!(left, "", "{feature}");
    }
}

/// Deployed again by either reader, with keys and lists in another order and values spelled
/// otherwise.
fn the_same_in_another_order_restarts_nothing(lab: &Lab) {
    let folder = tempfile::tempdir().expect("a folder");
    let one = r#"
        version: "3.5"
        services:
          web:
            image: busybox:latest
            command: sleep 1000000
            stop_grace_period: 1s
            environment: {A: "1", B: "2", C: "3", D: "4", E: "5"}
            labels: {z: "1", y: "2"}
            ports: ["8130:80", "8131:81"]
            networks: [front, back, aaa]
            volumes: ["v1:/v1", "v2:/v2"]
            ulimits: {nofile: 1024, nproc: 512}
            deploy: {labels: [k=v, m=n]}
        networks: {front: , back: , aaa: }
        volumes: {v1: {driver: local}, v2: }
    "#;
    let other = r#"
        version: "3.5"
        networks: {aaa: , back: , front: }
        volumes: {v2: , v1: {driver: local}}
        services:
          web:
            deploy: {labels: {m: n, k: v}, replicas: 1}
            ulimits: {nproc: 512, nofile: 1024}
            volumes: ["v1:/v1", "v2:/v2"]
            networks: [aaa, front, back]
            ports: ["8131:81", "8130:80"]
            labels: [y=2, z=1]
            environment: [E=5, C=3, D=4, A=1, B=2]
            stop_grace_period: 1000ms
            command: [sleep, "1000000"]
            image: busybox:latest
    "#;
    let files = [("one", one), ("other", other)].map(|(name, text)| {
        let file = folder.path().join(format!("{name}.yml"));
        std::fs::write(&file, text).expect("a stack file");
        file.display().to_string()
    });
    let deploy = ["stack", "deploy", "--detach=true", "--resolve-image=never", "--compose-file"];
    for file in [&files[0], &files[1], &files[0]] {
        lab.docker(&[&deploy[..], &[file, "same"]].concat()).good();
        lab.converged("same_web", "1/1", secs(60));
        lab.skep(&[&deploy[..], &[file, "same"]].concat()).good();
    }
    // What is new shows that every deploy was looked at, and that it replaced nothing.
    lab.docker(&["service", "scale", "--detach", "same_web=2"]).good();
    lab.converged("same_web", "2/2", secs(60));
    assert_eq!(lab.history("same_web").lines().count(), 2, "{}", lab.history("same_web"));
    lab.docker(&["stack", "rm", "same"]).good();
}

/// What docker's own reader knows nothing of: `include`, `extends`, `.env`, profiles, and services
/// that wait for others.
fn a_stack_of_several_files(lab: &Lab) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("stacks/parts");
    let file = folder.join("main.yml").display().to_string();
    let deploy = ["stack", "deploy", "--resolve-image=never", "--compose-file", &file];
    // What it would do is told before it is done, and nothing is done.
    let plan = |more: &[&str]| {
        let plan = ["stack", "plan", "--resolve-image=never", "--compose-file", &file];
        lab.skep(&[&plan[..], more, &["parts"]].concat())
    };
    let all = plan(&[]);
    assert_eq!(all.code, Some(3), "{all:?}");
    for line in ["+ config parts_conf", "+ network parts_default", "+ service parts_web: 1 task"] {
        assert!(all.out.contains(line), "{line} is missing:\n{}", all.out);
    }
    let told = lab.skep(&[&deploy[..], &["parts"]].concat()).good();
    let at = |line: &str| told.find(line).unwrap_or_else(|| panic!("{line} is missing:\n{told}"));
    assert!(at("Creating service parts_db") < at("Waiting until service parts_db is healthy"));
    assert!(at("Waiting until service parts_db is healthy") < at("Creating service parts_web"));
    let services = ["stack", "services", "--format", "{{.Name}}", "parts"];
    let mut names: Vec<String> = lab.docker(&services).good().lines().map(str::to_owned).collect();
    names.sort();
    assert_eq!(names, ["parts_db", "parts_init", "parts_web"]);
    lab.converged("parts_web", "1/1", secs(60));
    let stack = Stack { lab, name: "parts" };
    // It was made when the other one was well.
    let times = |service: &str| stack.inspect(service, "{{.CreatedAt}}");
    assert!(times("db") < times("web"), "{} {}", times("db"), times("web"));
    assert_eq!(stack.variable("web", "KIND").as_deref(), Some("base"));
    assert_eq!(stack.inside("web", "cat /tmp/said").good().trim(), "hello from beside");
    assert_eq!(stack.variable("db", "OWN").as_deref(), Some("of the database"));
    assert_eq!(stack.inside("db", "cat /conf").good().trim(), "kept beside the database");
    // What is there would stay as it is.
    let none = plan(&[]);
    assert!(none.code == Some(0) && none.out.contains("0 to create, 0 to change"), "{none:?}");
    let one = plan(&["--profile", "debug"]);
    assert!(one.code == Some(3) && one.out.contains("+ service parts_debug: 1 task"), "{one:?}");
    let update = ["service", "plan", "--env-add", "KIND=other", "parts_web"];
    let update = lab.skep(&update);
    let tells = update.out.contains("replaces its task, the old first: none goes on meanwhile");
    assert!(update.code == Some(3) && tells, "{update:?}");
    assert_eq!(stack.variable("web", "KIND").as_deref(), Some("base"));
    // With the profile there is one more; what is there waits for nothing.
    let told = lab.skep(&[&deploy[..], &["--profile", "debug", "parts"]].concat()).good();
    assert!(told.contains("Creating service parts_debug") && !told.contains("Waiting"), "{told}");
    lab.docker(&["stack", "rm", "parts"]).good();
}

/// `stack rm` and `stack deploy` with no pause between them.
fn stacks_that_come_and_go_at_once(lab: &Lab) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("stack.yml");
    let path = file.display().to_string();
    let service = "{image: 'busybox:latest', command: sleep 1000000, stop_grace_period: 2s, networks: [n, default]}";
    let text = format!(
        "version: '3.5'\nservices:\n  a: {service}\n  b: {service}\nnetworks: {{n: {{}}}}\n"
    );
    std::fs::write(&file, text).expect("a stack file");
    for _ in 0..3 {
        let deploy = ["stack", "deploy", "--detach=true", "--resolve-image=never"];
        lab.docker(&[&deploy[..], &["--compose-file", &path, "quick"]].concat()).good();
        lab.converged("quick_a", "1/1", secs(60));
        lab.converged("quick_b", "1/1", secs(60));
        until("its neighbour by name", secs(15), || {
            let container = lab.containers(NODES, "quick_a").remove(0);
            let shown = lab.inside(&container, "nslookup -type=a b 127.0.0.11");
            if shown.ok { Ok(()) } else { Err(shown.out + &shown.err) }
        });
        lab.docker(&["stack", "rm", "quick"]).good();
    }
    until("nothing is left", secs(60), || {
        let networks = lab.docker(&["network", "ls"]).good();
        if networks.contains("quick_") { Err(networks) } else { Ok(()) }
    });
}
