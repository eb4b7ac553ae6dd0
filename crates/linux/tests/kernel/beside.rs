//! Beside others on the node: their firewalls, bridges, routes, marks and subnets.

use crate::support::{Lab, PATIENCE, PORT, ask_tcp, eventually, ping, run, serve, wait};
use discovery::{Depth, Kernel as _, Outcome};
use linux::{Kernel, run_in};
use std::io::Write;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use types::Protocol::Tcp;

const TASK: (u8, u8) = (1, 1);
const FAR_TASK: (u8, u8) = (2, 1);
const PUBLISHED: u16 = 8080;
const BRIDGE_FILTER: &str = "net.bridge.bridge-nf-call-iptables";

const FORWARDING: &str = "net.ipv4.ip_forward";

/// Two nodes; both tasks are published.
fn lab() -> Lab {
    lab_where("0")
}

/// The same on machines that forward already, or not.
fn lab_where(forwarding: &str) -> Lab {
    let mut lab = Lab::new(2, 2);
    for host in [1, 2] {
        ip(&lab.host(host), &format!("sysctl -qw {FORWARDING}={forwarding}"));
    }
    lab.ports.insert((Tcp, PUBLISHED), vec![TASK, FAR_TASK]);
    lab.apply();
    lab.serve_all(&[TASK, FAR_TASK]);
    serve(&lab.machine(), 80, "outside");
    lab
}

fn ip(place: &Path, command: &str) -> String {
    run(place, &command.split(' ').collect::<Vec<_>>())
}

/// Loads rules as another program would.
fn load(lab: &Lab, rules: &str) {
    run(&lab.host(1), &["nft", rules]);
}

/// Waits until the first node notices what others did, and repairs it, as the data plane does.
fn notice(lab: &mut Lab) {
    let kernel = &mut lab.hosts.get_mut(&1).unwrap().kernel;
    let noticed = wait(async { tokio::time::timeout(PATIENCE, kernel.disturbed()).await });
    assert!(noticed.is_ok(), "nobody noticed");
    let desired = Arc::new(lab.desired(1));
    let kernel = &mut lab.hosts.get_mut(&1).unwrap().kernel;
    assert!(wait(kernel.apply(&desired, Depth::Rules)).unwrap().is_whole());
}

/// Published ports on tasks here and there, the way out, and the way to one's own port.
fn check_all(lab: &Lab) {
    for _ in 0..2 {
        assert!(ask_tcp(&lab.machine(), lab.node_address(1), PUBLISHED).is_ok());
        assert!(ask_tcp(&lab.machine(), lab.node_address(2), PUBLISHED).is_ok());
        assert!(ask_tcp(&lab.container(TASK), lab.node_address(1), PUBLISHED).is_ok());
        assert!(ask_tcp(&lab.container((1, 2)), lab.node_address(1), PUBLISHED).is_ok());
    }
    assert!(ask_tcp(&lab.container(TASK), lab.underlay.address(0), 80).is_ok());
}

#[test]
fn rules_that_are_flushed_are_noticed_at_once() {
    let mut lab = lab();
    for rules in ["flush ruleset", "delete table ip skep_mesh", "flush chain ip skep_mesh pre"] {
        load(&lab, rules);
        notice(&mut lab);
        check_all(&lab);
    }
}

/// Says whether the node forwards for others: here from one neighbour to another.
fn forwards_for_others(lab: &Lab) -> bool {
    let route = format!("{}/32 via {}", lab.node_address(2), lab.node_address(1));
    ip(&lab.machine(), &format!("ip route add {route}"));
    let answered = ping(&lab.machine(), lab.node_address(2));
    ip(&lab.machine(), &format!("ip route del {route}"));
    answered
}

fn clean(lab: &mut Lab) {
    let (host, config) = (lab.host(1), lab.hosts[&1].config.clone());
    lab.hosts.remove(&1);
    run_in(&host, || Kernel::clean(&config)).unwrap().unwrap();
}

/// A network of others behind the first node, made when the daemon runs, as virtual machines have it.
fn later(lab: &Lab) -> PathBuf {
    let later = lab.machine().with_file_name("later");
    wait(dataplane::Namespaces::create(&linux::Namespaces, &later)).unwrap();
    let host = lab.host(1);
    let peer = format!("ip link add later type veth peer name eth0 netns {}", later.display());
    for command in [&*peer, "ip addr add 10.9.0.1/24 dev later", "ip link set later up"] {
        ip(&host, command);
    }
    for command in [
        "ip addr add 10.9.0.2/24 dev eth0",
        "ip link set eth0 up",
        "ip route add default via 10.9.0.1",
    ] {
        ip(&later, command);
    }
    let back = format!("ip route add 10.9.0.0/24 via {}", lab.node_address(1));
    ip(&lab.machine(), &back);
    later
}

#[test]
fn a_machine_that_did_not_forward_leads_between_its_own_networks_no_more_than_before() {
    let mut lab = lab();
    assert_eq!(ip(&lab.host(1), &format!("sysctl -n {FORWARDING}")).trim(), "1");
    assert!(!forwards_for_others(&lab));
    check_all(&lab);
    // Others who come later find that the machine forwards, and make their own rules.
    let later = later(&lab);
    assert!(ping(&later, lab.underlay.address(0)));
    lab.repair();
    assert!(!forwards_for_others(&lab));
    // Nor after another daemon has come, or others have flushed all rules.
    lab.restart();
    lab.apply();
    assert!(!forwards_for_others(&lab));
    load(&lab, "flush ruleset");
    notice(&mut lab);
    assert!(!forwards_for_others(&lab));
    assert!(ping(&later, lab.underlay.address(0)));
    check_all(&lab);
    // Others switch it off, and flush all rules, while there is no daemon.
    load(&lab, "flush ruleset");
    ip(&lab.host(1), &format!("sysctl -qw {FORWARDING}=0"));
    lab.restart();
    lab.apply();
    assert!(!forwards_for_others(&lab));
    check_all(&lab);
    let host = lab.host(1);
    clean(&mut lab);
    assert_eq!(ip(&host, &format!("sysctl -n {FORWARDING}")).trim(), "0");
}

#[test]
fn a_machine_that_is_a_router_stays_one() {
    let mut lab = lab_where("1");
    assert!(forwards_for_others(&lab));
    lab.restart();
    lab.apply();
    lab.repair();
    assert!(forwards_for_others(&lab));
    check_all(&lab);
    let host = lab.host(1);
    clean(&mut lab);
    assert_eq!(ip(&host, &format!("sysctl -n {FORWARDING}")).trim(), "1");
}

#[test]
fn a_firewall_that_drops_what_is_forwarded_lets_us_pass_and_nobody_else() {
    let mut lab = lab_where("1");
    assert!(forwards_for_others(&lab));
    for rules in [
        // As Docker and ufw have it.
        "table ip filter {
            chain USER {
            }
            chain FORWARD {
                type filter hook forward priority 0; policy drop;
                counter jump USER
            }
        }",
        // As firewalld has it.
        "table inet firewall {
            chain FORWARD {
                type filter hook forward priority 10; policy accept;
                ct state established,related accept
                ct state invalid drop
                reject with icmpx admin-prohibited
            }
        }",
    ] {
        load(&lab, rules);
        notice(&mut lab);
        check_all(&lab);
        assert!(!forwards_for_others(&lab), "{rules}");
        // Once is enough.
        let before = ip(&lab.host(1), "nft -s list ruleset");
        lab.repair();
        assert_eq!(ip(&lab.host(1), "nft -s list ruleset"), before);
        // The firewall is loaded anew.
        load(&lab, &format!("flush ruleset\n{rules}"));
        notice(&mut lab);
        check_all(&lab);
        assert!(!forwards_for_others(&lab), "{rules}");
    }
    // A rule of the firewall's user comes first.
    load(
        &lab,
        "flush ruleset
        table ip filter {
            chain FORWARD {
                type filter hook forward priority 0; policy drop;
                ip daddr 10.250.0.1 drop
            }
        }",
    );
    notice(&mut lab);
    assert!(ask_tcp(&lab.container((1, 2)), lab.underlay.address(0), 80).is_err());
    let host = lab.host(1);
    clean(&mut lab);
    let left = ip(&host, "nft list ruleset");
    assert!(left.contains("policy drop") && !left.contains("skep"), "{left}");
}

/// As firewalld has it: what comes from the underlay is in a zone, and so is all that is not named.
const ZONES: &str = "table inet firewalld {
    chain filter_FORWARD {
        type filter hook forward priority 10; policy accept;
        ct state { established, related } accept
        ct status dnat accept
        iifname lo accept
        ct state invalid drop
        jump filter_FORWARD_ZONES
        reject with icmpx admin-prohibited
    }
    chain filter_FORWARD_ZONES {
        iifname eth0 goto filter_FWD_public
        goto filter_FWD_public
    }
    chain filter_FWD_public {
        jump filter_FWD_public_deny
        meta l4proto { icmp, ipv6-icmp } accept
        reject with icmpx admin-prohibited
    }
    chain filter_FWD_public_deny {
        ip daddr 10.250.0.2 tcp dport 81 drop
    }
    chain filter_FWD_trusted {
        accept
    }
}";

#[test]
fn a_firewall_of_zones_lets_us_pass_and_nobody_else() {
    let mut lab = lab();
    load(&lab, ZONES);
    let way_out = |lab: &Lab| ask_tcp(&lab.container((1, 2)), lab.underlay.address(0), 80).is_ok();
    assert!(!way_out(&lab), "it stands in the way");
    notice(&mut lab);
    check_all(&lab);
    let forwards = ip(&lab.host(1), "nft list chain inet firewalld filter_FORWARD");
    assert_eq!(forwards.matches("skep").count(), 4, "{forwards}");
    let before = ip(&lab.host(1), "nft -s list ruleset");
    lab.repair();
    assert_eq!(ip(&lab.host(1), "nft -s list ruleset"), before);
    // Its user names our interfaces: nothing more is needed.
    load(&lab, &format!("flush ruleset\n{ZONES}"));
    for zone in ["skep_gwbridge", "skep_mesh"] {
        let chain = "inet firewalld filter_FORWARD_ZONES";
        load(&lab, &format!("insert rule {chain} iifname {zone} goto filter_FWD_trusted"));
    }
    lab.repair();
    check_all(&lab);
    let forwards = ip(&lab.host(1), "nft list chain inet firewalld filter_FORWARD");
    assert!(!forwards.contains("skep"), "{forwards}");
}

/// Loads rules as a program that keeps their table for itself; they are there while it lives.
struct Program(std::process::Child);

impl Program {
    #[expect(clippy::disallowed_methods, reason = "tests run programs")]
    fn load(lab: &Lab, rules: &str) -> Self {
        let file = lab.machine().with_file_name("rules.nft");
        std::fs::write(&file, rules).unwrap();
        let mut command = std::process::Command::new("nft");
        let command = linux::start_in(&mut command, &lab.host(1)).unwrap();
        let mut program = command.arg("-i").stdin(Stdio::piped()).spawn().unwrap();
        let input = program.stdin.as_mut().unwrap();
        writeln!(input, "include \"{}\"", file.display()).unwrap();
        let loaded = || ip(&lab.host(1), "nft list tables").contains("firewalld");
        eventually("its rules are there", loaded);
        std::fs::remove_file(&file).unwrap();
        Self(program)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[test]
fn a_firewall_that_belongs_to_a_program_alone_is_told_of_with_what_to_do() {
    let mut lab = lab();
    let (host, config) = (lab.host(1), lab.hosts[&1].config.clone());
    let told = || run_in(&host, || Kernel::beside(&config)).unwrap().unwrap();
    let program = Program::load(&lab, &ZONES.replacen('{', "{\n    flags owner;", 1));
    let remedy = "firewall-cmd --permanent --zone=trusted --add-interface=skep_gwbridge \
                  --add-interface=skep_mesh";
    let [note] = &told()[..] else { panic!("{:?}", told()) };
    assert!(note.contains("table inet firewalld belongs to one program"), "{note}");
    assert!(note.contains(remedy), "{note}");
    let desired = Arc::new(lab.desired(1));
    let mut apply = |depth| {
        let kernel = &mut lab.hosts.get_mut(&1).unwrap().kernel;
        wait(kernel.apply(&desired, depth)).unwrap()
    };
    let outcome = apply(Depth::Repair);
    assert!(outcome.trouble().contains(remedy), "{outcome:?}");
    assert!(outcome.mesh.is_none() && !outcome.is_behind, "{outcome:?}");
    // It is known until it is looked at again: told of once.
    assert_eq!(apply(Depth::Change), outcome);
    assert_eq!(apply(Depth::Repair), outcome);
    drop(program);
    assert!(apply(Depth::Rules).is_whole());
    assert_eq!(told(), [""; 0]);
    check_all(&lab);
}

#[test]
fn routes_rules_and_marks_of_others_stay_as_they_are() {
    let mut lab = lab();
    let host = lab.host(1);
    ip(&host, "ip route add default via 10.250.0.1 table 100");
    ip(&host, "ip rule add from 10.99.0.0/16 lookup 100 priority 90");
    // All connections and packets have marks.
    load(
        &lab,
        "table ip marks {
            chain pre {
                type filter hook prerouting priority -160; policy accept;
                ct mark set 0x10001
                meta mark set 0x10001
            }
        }",
    );
    lab.repair();
    check_all(&lab);
    lab.restart();
    lab.repair();
    check_all(&lab);
    assert!(ip(&host, "ip route show table 100").contains("default via 10.250.0.1 dev eth0"));
    assert!(ip(&host, "ip rule").contains("from 10.99.0.0/16 lookup 100"));
}

#[test]
fn what_other_bridges_rely_on_is_not_switched_off() {
    let mut lab = lab();
    let host = lab.host(1);
    assert_eq!(ip(&host, &format!("sysctl -n {BRIDGE_FILTER}")).trim(), "0");
    ip(&host, "ip link add docker0 type bridge");
    ip(&host, &format!("sysctl -qw {BRIDGE_FILTER}=1"));
    lab.repair();
    assert_eq!(ip(&host, &format!("sysctl -n {BRIDGE_FILTER}")).trim(), "1");
    check_all(&lab);
    // Containers still do not meet by the gateway.
    let neighbour = crate::support::gateway_address((1, 2));
    lab.serve((1, 2));
    let container = lab.container(TASK);
    ip(&container, &format!("ip route add {neighbour}/32 dev eth1"));
    assert!(ask_tcp(&container, neighbour, PORT).is_err());
    ip(&host, "ip link del docker0");
    lab.repair();
    assert_eq!(ip(&host, &format!("sysctl -n {BRIDGE_FILTER}")).trim(), "0");
    check_all(&lab);
}

#[test]
fn subnets_and_tunnels_of_others_are_not_taken() {
    let mut lab = Lab::new(2, 1);
    let host = lab.host(1);
    let desired = lab.desired(1);
    ip(&host, "ip link add other type bridge");
    ip(&host, "ip link set other up");
    ip(&host, "ip addr add 172.30.5.1/24 dev other");
    let node = lab.hosts.get_mut(&1).unwrap();
    let outcome = node.apply(&desired);
    let reason = outcome.node.unwrap();
    assert!(
        reason.contains("172.30.0.0/16 is in use on this node: other has 172.30.5.0/24"),
        "{reason}"
    );
    assert!(outcome.is_behind);
    ip(&host, "ip addr del 172.30.5.1/24 dev other");
    ip(&host, "ip addr add 10.255.7.1/24 dev other");
    let outcome = node.retry(&desired);
    let reason = outcome.mesh.clone().unwrap();
    assert!(
        reason.contains("10.255.0.0/16 is in use on this node: other has 10.255.7.0/24"),
        "{reason}"
    );
    assert!(outcome.node.is_none() && outcome.sandboxes.is_empty() && !outcome.is_behind);
    ip(&host, "ip addr del 10.255.7.1/24 dev other");
    ip(&host, "ip link add foreign type vxlan id 4096 dstport 4789 local 10.250.0.2");
    let reason = node.retry(&desired).mesh.unwrap();
    assert!(reason.contains("VNI 4096 is in use"), "{reason}");
    ip(&host, "ip link del foreign");
    // What is larger than ours and leads elsewhere does no harm.
    ip(&host, "ip route add 172.16.0.0/12 via 10.250.0.1");
    assert!(node.retry(&desired).is_whole());
    lab.apply();
    assert!(ping(&lab.container(TASK), Ipv4Addr::new(10, 250, 0, 1)));
}

#[test]
fn a_network_whose_number_is_taken_keeps_nobody_waiting() {
    let mut lab = Lab::new(1, 1);
    let (host, desired) = (lab.host(1), lab.desired(1));
    let vni = lab.vni;
    ip(&host, &format!("ip link add foreign type vxlan id {vni} dstport 4789 local 10.250.0.2"));
    let node = lab.hosts.get_mut(&1).unwrap();
    // A pause of a second each would be too long for so many.
    let all = async {
        for _ in 0..60 {
            let outcome = node.kernel.apply(&Arc::new(desired.clone()), Depth::Change).await;
            let networks = outcome.unwrap().networks;
            assert!(networks.values().all(|reason| reason.contains("is in use")), "{networks:?}");
            assert_eq!(networks.len(), 1);
        }
    };
    let in_time = wait(async { tokio::time::timeout(PATIENCE, all).await });
    assert!(in_time.is_ok(), "the kernel's thread waits for a number that is taken");
    ip(&host, "ip link del foreign");
    assert!(node.retry(&desired).is_whole());
}

#[test]
fn what_others_hold_is_not_tried_again_at_every_change() {
    let mut lab = Lab::new(1, 2);
    let (host, desired) = (lab.host(1), lab.desired(1));
    for vni in [lab.vni, 4096] {
        let local = lab.node_address(1);
        ip(
            &host,
            &format!("ip link add foreign{vni} type vxlan id {vni} dstport 4789 local {local}"),
        );
    }
    let overlay = lab.hosts[&1].config.overlays.join("overlay-net1");
    let node = lab.hosts.get_mut(&1).unwrap();
    // A container goes and comes; the network is wanted as before.
    let mut other = desired.clone();
    other.sandboxes.remove("c1-2");
    // A try makes the namespace of the network, and the rules of the node anew.
    let trace = |outcome: Outcome| {
        assert!(outcome.networks.contains_key(&"net1".into()) && outcome.mesh.is_some());
        assert!(outcome.sandboxes.contains_key("c1-1"));
        let network = overlay.exists();
        wait(dataplane::Namespaces::remove(&linux::Namespaces, &overlay)).unwrap();
        let mesh = !ip(&host, "nft list chain ip skep_mesh pre").contains("of others");
        if mesh {
            run(&host, &["nft", "add rule ip skep_mesh pre counter comment \"of others\""]);
        }
        (network, mesh)
    };
    assert_eq!(trace(node.apply(&desired)), (true, true));
    for _ in 0..3 {
        assert_eq!(trace(node.apply(&other)), (false, false));
        assert_eq!(trace(node.apply(&desired)), (false, false));
    }
    assert_eq!(trace(node.retry(&desired)), (true, true));
    // Another number is another try.
    let mut another = desired.clone();
    another.overlays.values_mut().for_each(|overlay| overlay.vni = 5000);
    let outcome = node.apply(&another);
    assert!(outcome.networks.is_empty() && outcome.sandboxes.is_empty(), "{outcome:?}");
}

#[test]
fn what_others_have_is_told_before_anything_is_made() {
    let lab = Lab::new(1, 0);
    let (host, config) = (lab.host(1), &lab.hosts[&1].config);
    let told = || run_in(&host, || Kernel::beside(config)).unwrap().unwrap();
    ip(&host, &format!("sysctl -qw {FORWARDING}=1"));
    assert_eq!(told(), [""; 0]);
    ip(&host, &format!("sysctl -qw {FORWARDING}=0"));
    load(
        &lab,
        "table ip filter {
            chain FORWARD {
                type filter hook forward priority 0; policy drop;
            }
        }",
    );
    ip(&host, "ip link add docker0 type bridge");
    ip(&host, "ip addr add 172.30.5.1/24 dev docker0");
    ip(&host, &format!("sysctl -qw {BRIDGE_FILTER}=1"));
    ip(&host, "ip link add foreign type vxlan id 4097 dstport 4789 local 10.250.0.2");
    let notes = told();
    let about = [
        "ip filter FORWARD drops",
        "ip_forward is off and is switched on",
        "172.30.5.0/24",
        "foreign has VNI 4097",
        "bridge-nf-call",
    ];
    assert_eq!(notes.len(), about.len(), "{notes:?}");
    for (note, about) in notes.iter().zip(about) {
        assert!(note.contains(about), "{note}");
    }
}
