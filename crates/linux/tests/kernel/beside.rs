//! Beside others on the node: their firewalls, bridges, routes, marks and subnets.

use crate::support::{Lab, PATIENCE, PORT, ask_tcp, ping, run, serve, wait};
use discovery::{Depth, Kernel as _};
use linux::{Kernel, run_in};
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use types::Protocol::Tcp;

const TASK: (u8, u8) = (1, 1);
const FAR_TASK: (u8, u8) = (2, 1);
const PUBLISHED: u16 = 8080;
const BRIDGE_FILTER: &str = "net.bridge.bridge-nf-call-iptables";

/// Two nodes; both tasks are published.
fn lab() -> Lab {
    let mut lab = Lab::new(2, 2);
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

#[test]
fn a_firewall_that_drops_what_is_forwarded_lets_us_pass_and_nobody_else() {
    let mut lab = lab();
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
    let (host, config) = (lab.host(1), lab.hosts[&1].config.clone());
    lab.hosts.remove(&1);
    run_in(&host, || Kernel::clean(&config)).unwrap().unwrap();
    let left = ip(&host, "nft list ruleset");
    assert!(left.contains("policy drop") && !left.contains("skep"), "{left}");
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
    let outcome = node.apply(&desired);
    let reason = outcome.mesh.clone().unwrap();
    assert!(
        reason.contains("10.255.0.0/16 is in use on this node: other has 10.255.7.0/24"),
        "{reason}"
    );
    assert!(outcome.node.is_none() && outcome.sandboxes.is_empty() && !outcome.is_behind);
    ip(&host, "ip addr del 10.255.7.1/24 dev other");
    ip(&host, "ip link add foreign type vxlan id 4096 dstport 4789 local 10.250.0.2");
    let reason = node.apply(&desired).mesh.unwrap();
    assert!(reason.contains("VNI 4096 is in use"), "{reason}");
    ip(&host, "ip link del foreign");
    // What is larger than ours and leads elsewhere does no harm.
    ip(&host, "ip route add 172.16.0.0/12 via 10.250.0.1");
    assert!(node.apply(&desired).is_whole());
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
    lab.apply();
}

#[test]
fn what_others_have_is_told_before_anything_is_made() {
    let lab = Lab::new(1, 0);
    let (host, config) = (lab.host(1), &lab.hosts[&1].config);
    let told = || run_in(&host, || Kernel::beside(config)).unwrap().unwrap();
    assert_eq!(told(), [""; 0]);
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
    let about =
        ["ip filter FORWARD drops", "172.30.5.0/24", "foreign has VNI 4097", "bridge-nf-call"];
    assert_eq!(notes.len(), about.len(), "{notes:?}");
    for (note, about) in notes.iter().zip(about) {
        assert!(note.contains(about), "{note}");
    }
}
