//! What is applied twice changes nothing; what others break is repaired; what is cleaned is gone.

use crate::support::{
    Held, Lab, PORT, VIP, address, ask_all, ask_tcp, eventually, ping, run, survey,
};
use discovery::Interface;
use linux::{Kernel, run_in};
use std::fmt::Write as _;
use std::path::Path;
use types::Protocol::{Tcp, Udp};
use types::Subnet;

const BACKENDS: [(u8, u8); 2] = [(1, 2), (2, 1)];

fn lab() -> Lab {
    let mut lab = Lab::new(2, 2);
    lab.vips.insert(VIP, BACKENDS.to_vec());
    lab.ports.insert((Tcp, 8080), BACKENDS.to_vec());
    lab.ports.insert((Udp, 8080), BACKENDS.to_vec());
    lab.apply();
    lab.serve_all(&BACKENDS);
    lab
}

fn check_all(lab: &Lab) {
    for (from, to, port) in [
        (lab.container((1, 1)), VIP, PORT),
        (lab.container((2, 2)), VIP, PORT),
        (lab.machine(), lab.node_address(1), 8080),
        (lab.machine(), lab.node_address(2), 8080),
    ] {
        // A UDP client that happens to draw a port that was used a moment ago meets the back end of
        // then: only who answers is certain, not how often.
        let answers = survey(&from, to, port, 4);
        let backend = |line: &str| line.contains(" c1-2 10.") || line.contains(" c2-1 10.");
        assert!(answers.lines().all(backend), "{} to {to}: {answers}", from.display());
        assert_eq!(answers.matches("tcp").count(), 2, "{} to {to}: {answers}", from.display());
    }
    assert!(ping(&lab.container((1, 1)), address((2, 2))));
}

/// All of the kernel's network in a namespace, with the numbers that change when it is remade.
fn picture(place: &Path) -> String {
    let mut text = String::new();
    for command in [
        "ip -o link",
        "ip -o addr",
        "ip route show table all",
        "ip rule",
        "ip neigh show nud permanent",
        "bridge fdb",
        "nft -a list ruleset",
    ] {
        let words: Vec<&str> = command.split(' ').collect();
        writeln!(text, "# {command}\n{}", run(place, &words)).unwrap();
    }
    // The kernel's own notes come and go, and turns are taken.
    let stable = |line: &&str| !line.contains("fe80") && !line.contains("ff02");
    text.lines().filter(stable).collect::<Vec<_>>().join("\n")
}

fn pictures(lab: &Lab) -> Vec<String> {
    let mut places = vec![lab.host(1), lab.host(2)];
    places.extend(lab.containers.iter().map(|name| lab.container(*name)));
    places.extend(lab.hosts.values().map(|host| host.config.overlays.join("overlay-net1")));
    places.iter().map(|place| picture(place)).collect()
}

#[test]
fn applying_twice_changes_nothing() {
    let mut lab = lab();
    let before = pictures(&lab);
    for _ in 0..2 {
        lab.apply();
        lab.repair();
        for (before, after) in before.iter().zip(pictures(&lab)) {
            expect_test::expect![[""]].assert_eq(&difference(before, &after));
        }
    }
}

fn difference(before: &str, after: &str) -> String {
    let gone = before.lines().filter(|line| !after.lines().any(|other| other == *line));
    let new = after.lines().filter(|line| !before.lines().any(|other| other == *line));
    let gone = gone.map(|line| format!("- {line}\n"));
    gone.chain(new.map(|line| format!("+ {line}\n"))).collect()
}

#[test]
fn a_change_of_one_service_touches_nothing_else() {
    let mut lab = lab();
    let other = [10, 0, 1, 201].into();
    lab.vips.insert(other, vec![(2, 1)]);
    lab.apply();
    let before = picture(&lab.container((1, 1)));
    lab.vips.insert(other, vec![(1, 2)]);
    lab.apply();
    let changes = difference(&before, &picture(&lab.container((1, 1))));
    for (what, count) in [("dnat to numgen inc mod 1", 2), ("add @used", 2), ("comment", 2)] {
        assert_eq!(changes.matches(what).count(), count, "{what}: {changes}");
    }
    assert_eq!(changes.lines().count(), 6, "{changes}");
}

#[test]
fn what_others_break_is_repaired() {
    let mut lab = lab();
    let overlay = lab.hosts[&1].config.overlays.join("overlay-net1");
    let (host, container) = (lab.host(1), lab.container((1, 1)));
    let breakages: [(&Path, &str); 14] = [
        (&host, "nft flush ruleset"),
        (&container, "nft flush ruleset"),
        (&host, "ip link del skep_mesh"),
        (&host, "ip link del skep_gwbridge"),
        (&host, "ip route flush table 1936418160"),
        (&host, "ip rule del priority 90"),
        (&host, "ip neigh flush dev skep_mesh nud permanent"),
        (&host, "ip addr flush dev skep_gwbridge"),
        (&host, "ip link set skep_gwbridge down"),
        (&overlay, "ip link del vx0"),
        (&overlay, "ip link del br0"),
        (&overlay, "bridge fdb del 02:42:0a:00:01:15 dev vx0 self"),
        (&container, "ip link del eth0"),
        (&container, "ip route flush default"),
    ];
    for (place, command) in breakages {
        println!("{command}");
        run(place, &command.split(' ').collect::<Vec<_>>());
        lab.repair();
        check_all(&lab);
    }
}

#[test]
fn a_change_after_a_foreign_flush_is_applied_whole() {
    let mut lab = lab();
    run(&lab.host(1), &["nft", "flush", "ruleset"]);
    run(&lab.container((1, 1)), &["nft", "flush", "ruleset"]);
    lab.vips.insert(VIP, vec![(2, 1)]);
    lab.ports.insert((Tcp, 8080), vec![(2, 1)]);
    lab.apply();
    assert_eq!(ask_tcp(&lab.container((1, 1)), VIP, PORT).unwrap(), "c2-1 10.0.1.11");
    assert_eq!(ask_tcp(&lab.machine(), lab.node_address(1), 8080).unwrap(), "c2-1 10.250.0.1");
}

#[test]
fn another_daemon_leaves_a_container_alone_that_is_as_it_shall_be() {
    let mut lab = lab();
    let container = lab.container((1, 1));
    let before = picture(&container);
    lab.restart();
    lab.apply();
    expect_test::expect![[""]].assert_eq(&difference(&before, &picture(&container)));
    for command in ["nft flush chain ip skep output", "nft add table ip other"] {
        run(&container, &command.split(' ').collect::<Vec<_>>());
        lab.restart();
        lab.apply();
        check_all(&lab);
    }
    lab.vips.insert(VIP, vec![(2, 1)]);
    lab.restart();
    lab.apply();
    assert_eq!(ask_tcp(&container, VIP, PORT).unwrap(), "c2-1 10.0.1.11");
}

#[test]
fn another_daemon_takes_over_without_breaking_connections() {
    let mut lab = lab();
    let (client, node) = (lab.container((1, 1)), lab.node_address(1));
    let mut held: Vec<Held> = (0..4)
        .map(|_| Held::open(&client, VIP, PORT).unwrap())
        .chain((0..4).map(|_| Held::open(&lab.machine(), node, 8080).unwrap()))
        .collect();
    let links = run(&lab.host(1), &["ip", "-o", "link"]);
    lab.restart();
    ask_all(&mut held);
    lab.apply();
    ask_all(&mut held);
    assert_eq!(run(&lab.host(1), &["ip", "-o", "link"]), links);
    check_all(&lab);
}

#[test]
fn a_sandbox_that_has_gone_is_skipped_and_one_without_networks_has_the_way_out() {
    let mut lab = lab();
    let mut desired = lab.desired(1);
    let mut plain = desired.sandboxes.remove("c1-1").unwrap();
    plain.interfaces.clear();
    plain.vips = discovery::Vips::default();
    desired.sandboxes.insert("plain".into(), plain.clone());
    plain.netns = "/nowhere".into();
    desired.sandboxes.insert("gone".into(), plain);
    assert!(lab.hosts.get_mut(&1).unwrap().apply(&desired).is_whole());
    let links = run(&lab.container((1, 1)), &["ip", "-o", "-4", "addr"]);
    assert!(links.contains("eth0    inet 172.30.0.11/16"), "{links}");
    assert!(!links.contains("eth1"), "{links}");
}

#[test]
fn cleaning_leaves_nothing() {
    let mut lab = lab();
    let host = lab.host(1);
    let config = lab.hosts[&1].config.clone();
    lab.hosts.remove(&1);
    for _ in 0..2 {
        run_in(&host, || Kernel::clean(&config)).unwrap().unwrap();
        let links = run(&host, &["ip", "-o", "link"]);
        let names = links.lines().filter_map(|line| line.split(": ").nth(1));
        let names: Vec<&str> = names.filter_map(|name| name.split('@').next()).collect();
        assert_eq!(names, ["lo", "eth0"]);
        assert_eq!(run(&host, &["nft", "list", "ruleset"]), "");
        assert!(!run(&host, &["ip", "rule"]).contains("fwmark"));
        assert_eq!(std::fs::read_dir(&config.overlays).unwrap().count(), 0);
    }
    drop(run_in(&lab.host(2), || Kernel::clean(&lab.hosts[&2].config)));
    let switch = lab.underlay.clone();
    run_in(&lab.machine(), || switch.down()).unwrap().unwrap();
    run_in(&lab.machine(), || switch.down()).unwrap().unwrap();
    eventually("the machine's interface goes", || {
        run(&lab.machine(), &["ip", "-o", "link"]).lines().count() == 1
    });
}

#[test]
fn a_tunnel_that_a_crash_left_behind_is_replaced_and_a_foreign_one_is_named() {
    let mut lab = Lab::new(2, 1);
    let tunnel = |name: &str, host: u8| {
        let local = lab.node_address(host).to_string();
        let add = format!("ip link add {name} type vxlan id 4097 dstport 4789 local {local}");
        run(&lab.host(host), &add.split(' ').collect::<Vec<_>>());
    };
    tunnel("skep4097", 1);
    tunnel("foreign", 2);
    let desired = lab.desired(2);
    let outcome = lab.hosts.get_mut(&2).unwrap().apply(&desired);
    let named =
        |reason: Option<&String>| reason.is_some_and(|it| it.contains("VNI 4097 is in use"));
    assert!(named(outcome.networks.get(&"net1".into())), "{outcome:?}");
    assert!(named(outcome.sandboxes.get("c2-1")), "{outcome:?}");
    run(&lab.host(2), &["ip", "link", "del", "foreign"]);
    assert!(lab.hosts.get_mut(&2).unwrap().retry(&desired).is_whole());
    lab.apply();
    assert!(ping(&lab.container((1, 1)), address((2, 1))));
    assert!(!run(&lab.host(1), &["ip", "-o", "link"]).contains("skep4097"));
}

#[test]
fn what_cannot_be_made_fails_alone() {
    let mut lab = lab();
    let add = "ip link add foreign type vxlan id 5000 dstport 4789 local 10.250.0.2";
    run(&lab.host(1), &add.split(' ').collect::<Vec<_>>());
    for own in [3, 4, 5] {
        lab.add((1, own));
    }
    lab.vips.insert([10, 0, 1, 201].into(), vec![(1, 2)]);
    let mut desired = lab.desired(1);
    let mut taken = desired.overlays[&"net1".into()].clone();
    taken.vni = 5000;
    taken.subnets = Subnet::new("10.0.2.0/24".parse().unwrap()).into_iter().collect();
    desired.overlays.insert("taken".into(), taken);
    // One on a network that cannot be made, one on that and another, one whose namespace is none.
    let attach = |desired: &mut discovery::Desired, id: &str| {
        let addresses = vec!["10.0.2.9/24".parse().unwrap()];
        let second = Interface { network: "taken".into(), addresses };
        desired.sandboxes.get_mut(id).unwrap().interfaces.push(second);
    };
    attach(&mut desired, "c1-3");
    attach(&mut desired, "c1-1");
    desired.sandboxes.get_mut("c1-5").unwrap().netns = "/proc/sys".to_owned();
    let host = lab.hosts.get_mut(&1).unwrap();
    for _ in 0..2 {
        let outcome = host.apply(&desired);
        assert_eq!(outcome.networks.len(), 1, "{outcome:?}");
        assert!(outcome.networks[&"taken".into()].contains("VNI 5000 is in use"), "{outcome:?}");
        let failed: Vec<_> = outcome.sandboxes.keys().map(String::as_str).collect();
        assert_eq!(failed, ["c1-1", "c1-3"]);
        assert_eq!(outcome.sandboxes["c1-3"], outcome.networks[&"taken".into()]);
        assert!(!outcome.is_behind && outcome.node.is_none() && outcome.mesh.is_none());
    }
    // All the rest goes on and changes.
    check_all(&lab);
    assert_eq!(
        ask_tcp(&lab.container((1, 1)), [10, 0, 1, 201].into(), PORT).unwrap(),
        "c1-2 10.0.1.11"
    );
    assert!(ping(&lab.container((1, 4)), address((2, 1))));
    run(&lab.host(1), &["ip", "link", "del", "foreign"]);
    let outcome = lab.hosts.get_mut(&1).unwrap().retry(&desired);
    assert!(outcome.is_whole(), "{outcome:?}");
}

#[test]
fn programs_that_are_started_inherit_nothing() {
    let lab = lab();
    let open = run(&lab.host(1), &["ls", "-l", "/proc/self/fd"]);
    assert!(!open.contains("socket:"), "{open}");
}

/// A daemon has descriptors for each of its containers, connections and logs. Netfilter's library
/// ends the process where its own has a number of 1024 or more.
#[test]
fn rules_come_and_are_repaired_however_many_descriptors_are_open() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();
    let open = || std::fs::File::open("/dev/null").unwrap();
    let taken: Vec<_> = std::iter::repeat_with(open).take(1100).collect();
    let mut lab = lab();
    check_all(&lab);
    run(&lab.container((1, 1)), &["nft", "flush", "ruleset"]);
    run(&lab.host(1), &["nft", "flush", "ruleset"]);
    lab.repair();
    check_all(&lab);
    drop(taken);
}

#[test]
fn a_node_that_leaves_the_cluster_keeps_only_the_way_out() {
    let mut lab = lab();
    let left = discovery::Desired::default();
    for _ in 0..2 {
        assert!(lab.hosts.get_mut(&1).unwrap().apply(&left).is_whole());
        let host = lab.host(1);
        let links = run(&host, &["ip", "-o", "link"]);
        assert!(links.contains("skep_gwbridge") && !links.contains("skep_mesh"), "{links}");
        assert!(!run(&host, &["ip", "rule"]).contains("fwmark"));
        assert!(!run(&host, &["nft", "list", "ruleset"]).contains("8080"));
        assert_eq!(std::fs::read_dir(&lab.hosts[&1].config.overlays).unwrap().count(), 0);
    }
    lab.apply();
    check_all(&lab);
}

#[test]
fn a_configuration_that_cannot_work_is_refused() {
    for (bridge, subnet, word) in [
        ("a-name-that-is-too-long", "172.30.0.0/16", "1 to 15"),
        ("../br", "172.30.0.0/16", "letters"),
        ("br", "172.30.0.0/30", "/29 or larger"),
    ] {
        let config = linux::Config {
            bridge: bridge.to_owned(),
            gateway_subnet: subnet.parse().unwrap(),
            overlays: "/nowhere".into(),
        };
        let error = Kernel::new(config).unwrap_err();
        assert!(error.to_string().contains(word), "{error}");
    }
}

#[test]
#[ignore = "prints how long things take; run it by hand"]
fn timing() {
    let mut lab = Lab::new(2, 0);
    let time = |what: &str, lab: &mut Lab| {
        #[expect(clippy::disallowed_methods, reason = "it measures")]
        let start = std::time::Instant::now();
        lab.apply();
        println!("{what}: {:?}", start.elapsed());
    };
    time("empty", &mut lab);
    for own in 1..=30 {
        lab.add((1, own));
    }
    time("30 containers", &mut lab);
    for service in 1..=20 {
        lab.vips.insert([10, 0, 1, 200 + service].into(), vec![(1, service), (1, service + 1)]);
    }
    time("20 services", &mut lab);
    lab.vips.insert([10, 0, 1, 201].into(), vec![(1, 2)]);
    time("one loses a back end", &mut lab);
    lab.vips.insert([10, 0, 1, 201].into(), vec![(1, 2), (1, 3)]);
    time("one gains a back end", &mut lab);
    lab.add((1, 31));
    time("one more container", &mut lab);
    time("the same again", &mut lab);
    lab.restart();
    time("take-over", &mut lab);
}
