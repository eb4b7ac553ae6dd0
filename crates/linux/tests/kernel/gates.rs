//! Who may begin a connection to a container, and which containers may begin one.

use crate::support::{
    Lab, PORT, address, ask_tcp, ask_udp, eventually, gateway_address, ingress_address, run, serve,
    survey,
};
use linux::run_in;
use std::net::{Ipv4Addr, TcpStream, UdpSocket};
use std::path::Path;
use std::time::Duration;
use types::Protocol::{Tcp, Udp};

const TASK: (u8, u8) = (1, 1);
const FAR_TASK: (u8, u8) = (2, 1);
const NEIGHBOUR: (u8, u8) = (1, 2);
const PUBLISHED: u16 = 8080;
const HOST_MODE: u16 = 9090;
const GATEWAY: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 1);
/// What is dropped stays silent so long; an answer within one machine takes less than 1 ms.
const SILENCE: Duration = Duration::from_millis(300);

/// Two nodes; the task and the far task are published, the neighbour of the first is not.
fn lab() -> Lab {
    let mut lab = Lab::new(2, 2);
    for protocol in [Tcp, Udp] {
        lab.ports.insert((protocol, PUBLISHED), vec![TASK, FAR_TASK]);
        lab.host_ports.insert((protocol, HOST_MODE), TASK);
    }
    lab.apply();
    lab.serve_all(&[TASK, FAR_TASK, NEIGHBOUR]);
    lab
}

fn ip(place: &Path, command: &str) {
    run(place, &command.split(' ').collect::<Vec<_>>());
}

/// Says whether nothing at all answers, neither by TCP nor by UDP.
fn silent(place: &Path, to: Ipv4Addr, port: u16) -> bool {
    run_in(place, || {
        let udp = UdpSocket::bind("0.0.0.0:0").unwrap();
        udp.set_read_timeout(Some(SILENCE)).unwrap();
        let sent = udp.send_to(b"?", (to, port));
        let quiet = sent.is_err() || udp.recv_from(&mut [0; 100]).is_err();
        quiet && TcpStream::connect_timeout(&(to, port).into(), SILENCE).is_err()
    })
    .unwrap()
}

/// The first task sees its clients as `seen`, the far task sees their own address.
fn check_published(lab: &Lab, seen: &str) {
    for node in [1, 2] {
        let answers = survey(&lab.machine(), lab.node_address(node), PUBLISHED, 4);
        for (name, seen) in [("c1-1", seen), ("c2-1", "10.250.0.1")] {
            for protocol in ["tcp", "udp"] {
                let wanted = format!("{protocol} {name} {seen} x2");
                assert!(answers.contains(&wanted), "by {node}: {answers}");
            }
        }
    }
    for ask in [ask_tcp as fn(&Path, _, _) -> _, ask_udp] {
        let answer = ask(&lab.machine(), lab.node_address(1), HOST_MODE);
        assert_eq!(answer.unwrap(), format!("c1-1 {seen}"));
    }
}

#[test]
fn an_outsider_with_a_route_reaches_published_ports_alone() {
    let mut lab = lab();
    let outsider = lab.machine();
    let node = lab.node_address(1);
    ip(&outsider, &format!("ip route add 172.30.0.0/16 via {node}"));
    ip(&outsider, &format!("ip route add 10.255.0.0/16 via {node}"));
    let check = |lab: &Lab| {
        for to in [
            gateway_address(TASK),
            gateway_address(NEIGHBOUR),
            ingress_address(TASK),
            ingress_address(FAR_TASK),
        ] {
            assert!(silent(&outsider, to, PORT), "{to} answers");
        }
        check_published(lab, "10.250.0.1");
    };
    check(&lab);
    ip(&lab.host(1), "nft flush ruleset");
    assert!(!silent(&outsider, gateway_address(TASK), PORT), "the rules are what keeps out");
    assert!(!silent(&outsider, ingress_address(FAR_TASK), PORT), "the rules are what keeps out");
    lab.repair();
    check(&lab);
    // The node itself reaches its containers.
    assert_eq!(ask_tcp(&lab.host(1), gateway_address(TASK), PORT).unwrap(), "c1-1 172.30.0.1");
}

#[test]
fn what_is_not_tracked_does_not_come_in() {
    let lab = lab();
    let node = lab.node_address(1);
    ip(&lab.machine(), &format!("ip route add 172.30.0.0/16 via {node}"));
    // The port of tunnels.
    serve(&lab.container(TASK), 4789, "tunnel");
    assert!(silent(&lab.machine(), gateway_address(TASK), 4789));
}

#[test]
fn containers_meet_on_their_networks_and_not_by_the_gateway() {
    let lab = lab();
    let container = lab.container(TASK);
    ip(&container, &format!("ip route add {}/32 via {GATEWAY}", gateway_address(NEIGHBOUR)));
    assert!(silent(&container, gateway_address(NEIGHBOUR), PORT));
    assert!(silent(&container, ingress_address(FAR_TASK), PORT));
    let answer = ask_tcp(&container, address(NEIGHBOUR), PORT);
    assert_eq!(answer.unwrap(), format!("c1-2 {}", address(TASK)));
    let answers = survey(&container, GATEWAY, PUBLISHED, 4);
    assert_eq!(answers.matches("x2").count(), 4, "{answers}");
}

#[test]
fn a_node_without_a_mesh_keeps_outsiders_out_as_well() {
    let mut lab = lab();
    let mut desired = lab.desired(1);
    desired.mesh = discovery::MeshRules {
        host_ports: [((Tcp, HOST_MODE), (gateway_address(TASK).into(), PORT))].into(),
        ..discovery::MeshRules::default()
    };
    desired.sandboxes.get_mut("c1-2").unwrap().default_route = false;
    assert!(lab.hosts.get_mut(&1).unwrap().apply(&desired).is_whole());
    let node = lab.node_address(1);
    ip(&lab.machine(), &format!("ip route add 172.30.0.0/16 via {node}"));
    assert!(silent(&lab.machine(), gateway_address(TASK), PORT));
    assert_eq!(ask_tcp(&lab.machine(), node, HOST_MODE).unwrap(), "c1-1 10.250.0.1");
    serve(&lab.host(1), 2222, "node");
    assert_eq!(ask_tcp(&lab.container(TASK), GATEWAY, 2222).unwrap(), "node 172.30.0.11");
    assert!(silent(&lab.container(NEIGHBOUR), GATEWAY, 2222));
}

#[test]
fn a_container_on_internal_networks_alone_answers_and_begins_nothing_by_the_gateway() {
    let mut lab = lab();
    let container = lab.container(TASK);
    let node = lab.node_address(1);
    serve(&lab.host(1), 2222, "node");
    serve(&lab.machine(), 80, "outside");
    let outside = lab.underlay.address(0);
    assert_eq!(ask_tcp(&container, GATEWAY, 2222).unwrap(), "node 172.30.0.11");
    lab.inside.insert(TASK);
    lab.apply();
    check_published(&lab, "172.30.0.1");
    // It may set a route, where it is allowed to; that does not help.
    ip(&container, &format!("ip route add default via {GATEWAY}"));
    let check = |lab: &Lab| {
        for (to, port) in [
            (GATEWAY, 2222),
            (node, 2222),
            (GATEWAY, PUBLISHED),
            (node, PUBLISHED),
            (lab.node_address(2), PUBLISHED),
            (outside, 80),
            (outside, 4789),
            (ingress_address(FAR_TASK), PORT),
        ] {
            assert!(silent(&container, to, port), "{to}:{port} answers");
        }
        check_published(lab, "172.30.0.1");
        let answer = ask_tcp(&lab.host(1), Ipv4Addr::LOCALHOST, HOST_MODE);
        assert_eq!(answer.unwrap(), "c1-1 172.30.0.1");
        let answer = ask_tcp(&container, address(FAR_TASK), PORT);
        assert_eq!(answer.unwrap(), format!("c2-1 {}", address(TASK)));
        // The other containers of this node go on as before.
        assert_eq!(ask_tcp(&lab.container(NEIGHBOUR), GATEWAY, 2222).unwrap(), "node 172.30.0.12");
        let answers = survey(&lab.container(NEIGHBOUR), node, PUBLISHED, 4);
        assert_eq!(answers.matches("x2").count(), 4, "{answers}");
        assert_eq!(ask_tcp(&lab.container(NEIGHBOUR), outside, 80).unwrap(), "outside 10.250.0.2");
    };
    serve(&lab.machine(), 4789, "tunnel");
    check(&lab);
    ip(&lab.host(1), "nft flush ruleset");
    lab.restart();
    lab.apply();
    ip(&container, &format!("ip route replace default via {GATEWAY}"));
    check(&lab);
    lab.inside.clear();
    lab.apply();
    assert_eq!(ask_tcp(&container, GATEWAY, 2222).unwrap(), "node 172.30.0.11");
}

#[test]
fn a_closed_port_of_an_internal_container_still_refuses_its_clients() {
    let mut lab = lab();
    let closed = (1, 3);
    lab.add(closed);
    lab.inside.insert(closed);
    for protocol in [Tcp, Udp] {
        lab.ports.insert((protocol, 8081), vec![closed]);
    }
    lab.apply();
    let node = lab.node_address(1);
    let refused = std::io::ErrorKind::ConnectionRefused;
    assert_eq!(ask_tcp(&lab.machine(), node, 8081).unwrap_err().kind(), refused);
    run_in(&lab.machine(), || {
        let udp = UdpSocket::bind("0.0.0.0:0").unwrap();
        udp.set_read_timeout(Some(crate::support::PATIENCE)).unwrap();
        udp.connect((node, 8081)).unwrap();
        udp.send(b"?").unwrap();
        assert_eq!(udp.recv(&mut [0; 10]).unwrap_err().kind(), refused);
    })
    .unwrap();
}

#[test]
fn the_bridge_speaks_no_other_protocol_than_the_rules_do() {
    let lab = lab();
    eventually("the bridge has no IPv6", || {
        !run(&lab.host(1), &["ip", "-o", "addr", "show", "skep_gwbridge"]).contains("inet6")
    });
}

#[test]
fn what_the_check_finds_is_what_the_tables_need() {
    let needs = linux::check();
    let missing: Vec<_> = needs
        .iter()
        .filter(|need| need.name.starts_with("nftables") && !need.present)
        .map(|need| (need.name, &need.found))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
    assert!(needs.iter().any(|need| need.name == "nftables in bridges"));
}
