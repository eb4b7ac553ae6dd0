//! What services have of their nodes' own where they ask for it: devices, name spaces, rights, and
//! the networks of one node.

use e2e::{Lab, until};
use std::fs;
use std::time::Duration;

const NODES: u8 = 2;
const LIMIT: Duration = Duration::from_mins(1);

#[test]
fn services_have_what_they_ask_of_their_nodes() {
    let lab = Lab::up(NODES, &["busybox"]);
    rights_devices_and_name_spaces(&lab);
    a_stack_file_has_words_for_it(&lab);
    what_is_wrong_is_refused_by_the_name_of_its_label(&lab);
    a_service_is_on_a_network_of_its_nodes(&lab);
    host_names_are_names_on_their_networks(&lab);
    assert_eq!(lab.down(), Vec::<String>::new());
}

/// Makes a service of one task that sleeps; says where its container is.
fn service(lab: &Lab, name: &str, options: &[&str]) -> (u8, String) {
    let create = ["service", "create", "--detach", "--stop-grace-period", "1s", "--name", name];
    let rest = ["busybox:latest", "sleep", "100000"];
    lab.docker(&[&create[..], options, &rest].concat()).good();
    lab.converged(name, "1/1", LIMIT);
    lab.containers(NODES, name).remove(0)
}

fn inside(lab: &Lab, container: &(u8, String), script: &str) -> String {
    lab.inside(container, script).good().trim().to_owned()
}

/// The addresses of a name as a container sees them.
fn addresses(lab: &Lab, container: &(u8, String), name: &str) -> String {
    let ask =
        format!("nslookup -type=a {name} 127.0.0.11 | sed -n 's/^Address: \\(10[.].*\\)/\\1/p'");
    inside(lab, container, &ask)
}

/// What stands for a name space of the machine.
fn machines(kind: &str) -> String {
    let link = fs::read_link(format!("/proc/self/ns/{kind}")).expect("a link");
    link.display().to_string()
}

fn rights_devices_and_name_spaces(lab: &Lab) {
    let folder = lab.folder().join("run/cdi");
    fs::create_dir_all(&folder).expect("a folder");
    let text = "kind: skep.test/thing\ndevices:\n- name: one\n  containerEdits:\n    \
                deviceNodes: [{path: /dev/thing, hostPath: /dev/full}]\n";
    fs::write(folder.join("thing.yaml"), text).expect("a file");

    let plain = service(lab, "plain", &[]);
    let parent = format!("skep.cgroup_parent={}/mine", lab.cgroup());
    let labels = [
        "skep.privileged=true",
        "skep.devices=/dev/full:/dev/other:rw,skep.test/thing=one",
        "skep.pid=host",
        "skep.ipc=host",
        "skep.uts=host",
        "skep.cgroup=host",
        "skep.userns_mode=host",
        &parent,
    ];
    let options: Vec<&str> = labels.iter().flat_map(|label| ["--container-label", label]).collect();
    let asking = service(lab, "asking", &options);
    for kind in ["pid", "ipc", "uts", "cgroup"] {
        let script = format!("readlink /proc/self/ns/{kind}");
        assert_eq!(inside(lab, &asking, &script), machines(kind), "{kind}");
        if kind != "cgroup" {
            assert_ne!(inside(lab, &plain, &script), machines(kind), "{kind}");
        }
    }
    let own = fs::read_to_string("/proc/self/status").expect("a status");
    let own = own.lines().find(|line| line.starts_with("CapBnd")).expect("a set");
    let rights = "grep CapBnd /proc/self/status";
    assert_eq!(inside(lab, &asking, rights), own);
    assert_ne!(inside(lab, &plain, rights), own);
    let device = "echo x 2>/dev/null >/dev/other; echo $?; ls /dev/thing";
    assert_eq!(inside(lab, &asking, device), "1\n/dev/thing");
    assert!(inside(lab, &asking, "cat /proc/self/cgroup").contains("/mine/"));

    // With another label its task is another.
    let add = ["--container-label-add", "skep.shm_size=8m", "--container-label-add"];
    let gpus = ["skep.devices=/dev/null:/dev/nothing", "plain"];
    lab.docker(&[&["service", "update", "--detach=false", "--quiet"], &add[..], &gpus].concat())
        .good();
    let plain = lab.containers(NODES, "plain").remove(0);
    let size = "df -k /dev/shm | tail -1 | tr -s ' ' | cut -d' ' -f2; ls /dev/nothing";
    assert_eq!(inside(lab, &plain, size), "8192\n/dev/nothing");
    let shown = lab.docker_at(
        plain.0,
        &["inspect", "--format", "{{.HostConfig.ShmSize}} {{json .HostConfig.Devices}}", &plain.1],
    );
    assert!(shown.good().starts_with("8388608 [{\"PathOnHost\":\"/dev/null\""));
    lab.docker(&["service", "rm", "plain", "asking"]).good();

    // A node that does not have a device says so, as it does of a container.
    let lost =
        ["--container-label", "skep.devices=/dev/there-is-none", "--restart-condition", "none"];
    let create = ["service", "create", "--detach", "--name", "lost"];
    lab.docker(&[&create[..], &lost, &["busybox:latest"]].concat()).good();
    until("the task says what it lacks", LIMIT, || {
        let history = lab.history("lost");
        let says = history.contains("/dev/there-is-none");
        says.then_some(()).ok_or(history)
    });
    lab.docker(&["service", "rm", "lost"]).good();
}

fn a_stack_file_has_words_for_it(lab: &Lab) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("stack.yml");
    let text = "
services:
  all:
    image: busybox:latest
    command: sleep 100000
    stop_grace_period: 1s
    privileged: true
    pid: host
    shm_size: 8m
    devices: ['/dev/full:/dev/other', 'skep.test/thing=one']
    deploy: {resources: {reservations: {devices: [{driver: cdi, device_ids: [skep.test/thing=one]}]}}}
  hosted:
    image: busybox:latest
    command: sleep 100000
    stop_grace_period: 1s
    network_mode: host
";
    fs::write(&file, text).expect("a file");
    let path = file.display().to_string();
    let deploy = ["stack", "deploy", "--detach", "--compose-file", &path, "asks"];
    let said = lab.skep(&deploy).good();
    assert!(!said.contains("ignored"), "{said}");
    lab.converged("asks_all", "1/1", LIMIT);
    lab.converged("asks_hosted", "1/1", LIMIT);
    let all = lab.containers(NODES, "asks_all").remove(0);
    let script = "readlink /proc/self/ns/pid; ls /dev/other /dev/thing; \
                  df -k /dev/shm | tail -1 | tr -s ' ' | cut -d' ' -f2";
    let wanted = format!("{}\n/dev/other\n/dev/thing\n8192", machines("pid"));
    assert_eq!(inside(lab, &all, script), wanted);
    let hosted = lab.containers(NODES, "asks_hosted").remove(0);
    assert!(inside(lab, &hosted, "ls /sys/class/net").contains("skep_gwbridge"));
    // The same again is the same.
    let (before, _) = (lab.tasks("asks_all"), lab.skep(&deploy).good());
    assert_eq!(lab.tasks("asks_all"), before);
    let plan = lab.skep(&["stack", "plan", "-c", &path, "asks"]).good();
    assert!(plan.contains("0 to create, 0 to change"), "{plan}");
    lab.docker(&["stack", "rm", "asks"]).good();
}

fn what_is_wrong_is_refused_by_the_name_of_its_label(lab: &Lab) {
    for (label, why) in [
        ("skep.privileged=maybe", "label skep.privileged: \"maybe\" is neither true nor false"),
        ("skep.devices=null", "label skep.devices: invalid device path \"null\""),
        ("skep.shm_size=-1", "label skep.shm_size: \"-1\" is no amount of bytes"),
        ("skep.ipc=container:x", "label skep.ipc: \"container:x\": a task has no name spaces"),
        ("skep.unknown=x", "label skep.unknown: it is not known"),
    ] {
        let create = ["service", "create", "--detach", "--container-label", label];
        let refused = lab.docker(&[&create[..], &["busybox:latest"]].concat()).bad();
        assert!(refused.contains(why), "{refused}");
    }
    lab.docker(&["network", "create", "--driver", "overlay", "net"]).good();
    for (options, why) in [
        (
            &["--network", "host", "--publish", "8080:80"][..],
            "port publishing and the network host",
        ),
        (
            &["--network", "none", "--publish", "published=8080,target=80,mode=host"],
            "port publishing and the network none",
        ),
        (
            &["--network", "host", "--network", "net"],
            "the network host of its nodes is on no other",
        ),
        (&["--hostname", "x", "--container-label", "skep.uts=host"], "hostname and the UTS mode"),
    ] {
        let create = [&["service", "create", "--detach"], options, &["busybox:latest"]].concat();
        let refused = lab.docker(&create).bad();
        assert!(refused.contains(why), "{refused}");
    }
    let taken = lab.docker(&["network", "create", "--driver", "overlay", "host"]).bad();
    assert!(taken.contains("predefined host network"), "{taken}");
}

fn a_service_is_on_a_network_of_its_nodes(lab: &Lab) {
    let links = "ls /sys/class/net | tr '\\n' ' '";
    let alone = service(lab, "alone", &["--network", "none"]);
    assert_eq!(inside(lab, &alone, links), "lo");
    let bridged = service(lab, "bridged", &["--network", "bridge"]);
    let seen = inside(lab, &bridged, links);
    assert!(seen.contains("eth0") && seen.contains("lo") && !seen.contains("skep"), "{seen}");
    let hosted = service(lab, "hosted", &["--network", "host", "--hostname", "own-name"]);
    let network = "readlink /proc/self/ns/net";
    let run =
        ["run", "--rm", "--network", "host", "busybox:latest", "readlink", "/proc/self/ns/net"];
    let nodes = lab.docker_at(hosted.0, &run).good();
    assert_eq!(inside(lab, &hosted, network), nodes.trim());
    assert_eq!(inside(lab, &hosted, "hostname"), "own-name");
    let shown = ["inspect", "--format", "{{.HostConfig.NetworkMode}}", &hosted.1];
    assert_eq!(lab.docker_at(hosted.0, &shown).good().trim(), "host");
    let pretty = lab.docker(&["service", "inspect", "--pretty", "hosted"]).good();
    assert!(pretty.contains("Networks: host"), "{pretty}");
    let listed = lab.docker(&["network", "ls", "--format", "{{.Name}} {{.Driver}} {{.Scope}}"]);
    let listed = listed.good();
    for line in ["bridge bridge local", "host host local", "none null local"] {
        assert!(listed.lines().any(|it| it == line), "{listed}");
    }

    // A daemon that ends and comes back finds its task.
    let (node, before) = (format!("node-{}", hosted.0), hosted.1.clone());
    lab.lab(&["kill", &node]).good();
    lab.lab(&["start", &node]).good();
    lab.converged("hosted", "1/1", LIMIT);
    assert_eq!(lab.containers(NODES, "hosted"), [(hosted.0, before)]);

    let moved = ["service", "update", "--quiet", "--detach=false", "--network-rm", "host"];
    lab.docker(&[&moved[..], &["--network-add", "net", "hosted"]].concat()).good();
    let hosted = lab.containers(NODES, "hosted").remove(0);
    assert_ne!(inside(lab, &hosted, network), nodes.trim());
    assert!(addresses(lab, &hosted, "hosted").starts_with("10.0."));
    lab.docker(&["service", "rm", "alone", "bridged", "hosted"]).good();
}

fn host_names_are_names_on_their_networks(lab: &Lab) {
    let create = ["service", "create", "--detach", "--replicas", "2", "--network", "net"];
    let named = ["--hostname", "shard-{{.Task.Slot}}", "--name", "db", "busybox:latest"];
    lab.docker(&[&create[..], &named, &["sleep", "100000"]].concat()).good();
    lab.converged("db", "2/2", LIMIT);
    // Its host name is its service's name, as in many files: the service has it.
    let web = service(lab, "web", &["--network", "net", "--hostname", "web"]);
    let found = |name: &str| addresses(lab, &web, name);
    for slot in 1..=2 {
        let address = found(&format!("db.{slot}"));
        assert!(address.starts_with("10.0."), "{address}");
        assert_eq!(found(&format!("shard-{slot}")), address);
        assert_eq!(found(&format!("shard-{slot}.net")), address);
    }
    let vip = lab.service("web", "{{(index .Endpoint.VirtualIPs 0).Addr}}");
    let client = lab.containers(NODES, "db").remove(0);
    let there = addresses(lab, &client, "web");
    assert_eq!(Some(there.as_str()), vip.trim().split('/').next(), "its service's name alone");
    lab.docker(&["service", "rm", "db", "web"]).good();
}
