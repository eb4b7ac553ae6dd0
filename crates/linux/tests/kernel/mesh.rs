//! Published ports on every node.

use crate::support::{
    Held, Lab, PORT, ask_all, ask_by, ask_tcp, ask_udp, serve, survey, udp_client,
};
use expect_test::{Expect, expect};
use linux::run_in;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use types::Protocol::{Tcp, Udp};

const BACKENDS: [(u8, u8); 3] = [(1, 2), (2, 1), (3, 1)];
const LOCALHOST: Ipv4Addr = Ipv4Addr::LOCALHOST;
const PUBLISHED: u16 = 8080;

fn published() -> Lab {
    let mut lab = Lab::new(3, 2);
    for protocol in [Tcp, Udp] {
        lab.ports.insert((protocol, PUBLISHED), BACKENDS.to_vec());
    }
    lab.apply();
    lab.serve_all(&BACKENDS);
    lab
}

fn check(place: &Path, to: Ipv4Addr, expected: &Expect) {
    expected.assert_eq(&survey(place, to, PUBLISHED, 6));
}

#[test]
fn an_external_client_keeps_its_address_whatever_node_it_enters_by() {
    let lab = published();
    for host in 1..=3 {
        check(
            &lab.machine(),
            lab.node_address(host),
            &expect![[r"
                tcp c1-2 10.250.0.1 x2
                tcp c2-1 10.250.0.1 x2
                tcp c3-1 10.250.0.1 x2
                udp c1-2 10.250.0.1 x2
                udp c2-1 10.250.0.1 x2
                udp c3-1 10.250.0.1 x2
            "]],
        );
    }
}

#[test]
fn localhost_of_a_node_reaches_back_ends_on_all_nodes() {
    let lab = published();
    check(
        &lab.host(1),
        LOCALHOST,
        &expect![[r"
            tcp c1-2 172.30.0.1 x2
            tcp c2-1 10.255.0.1 x2
            tcp c3-1 10.255.0.1 x2
            udp c1-2 172.30.0.1 x2
            udp c2-1 10.255.0.1 x2
            udp c3-1 10.255.0.1 x2
        "]],
    );
}

#[test]
fn nodes_reach_published_ports_of_themselves_and_of_others() {
    let lab = published();
    for (from, by) in [(1, 1), (1, 2), (3, 1)] {
        let answers = survey(&lab.host(from), lab.node_address(by), PUBLISHED, 6);
        for name in ["c1-2", "c2-1", "c3-1"] {
            for protocol in ["tcp", "udp"] {
                let wanted = format!("{protocol} {name} ");
                assert!(answers.contains(&wanted), "{from} by {by}: {answers}");
            }
        }
        assert_eq!(answers.matches("x2").count(), 6, "{from} by {by}: {answers}");
    }
}

#[test]
fn containers_reach_published_ports_also_their_own() {
    let lab = published();
    for from in [(1, 1), (1, 2), (2, 2)] {
        for by in [lab.node_address(1), lab.node_address(2), [172, 30, 0, 1].into()] {
            let answers = survey(&lab.container(from), by, PUBLISHED, 6);
            assert_eq!(answers.matches("x2").count(), 6, "{from:?} by {by}: {answers}");
        }
    }
}

#[test]
fn one_client_port_by_way_of_two_nodes_is_two_connections() {
    let mut lab = published();
    for protocol in [Tcp, Udp] {
        lab.ports.insert((protocol, PUBLISHED), vec![(3, 1)]);
    }
    lab.apply();
    let socket = udp_client(&lab.machine());
    for _ in 0..3 {
        for host in [1, 2] {
            let answer = ask_by(&socket, lab.node_address(host), PUBLISHED);
            assert_eq!(answer.unwrap(), "c3-1 10.250.0.1", "by {host}");
        }
    }
}

#[test]
fn a_published_port_without_back_ends_refuses_at_once() {
    let mut lab = published();
    for protocol in [Tcp, Udp] {
        lab.ports.insert((protocol, PUBLISHED), Vec::new());
    }
    lab.apply();
    for (from, by) in [
        (lab.machine(), lab.node_address(2)),
        (lab.host(2), LOCALHOST),
        (lab.container((2, 1)), lab.node_address(2)),
    ] {
        let error = ask_tcp(&from, by, PUBLISHED).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "from {}", from.display());
        let socket = udp_client(&from);
        socket.connect((by, PUBLISHED)).unwrap();
        socket.send(b"?").unwrap();
        let error = socket.recv(&mut [0; 10]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "from {}", from.display());
    }
}

#[test]
fn a_published_port_is_kept_from_the_nodes_own_processes_until_it_is_free() {
    let mut lab = published();
    let taken = run_in(&lab.host(2), || {
        let udp = UdpSocket::bind(("0.0.0.0", PUBLISHED)).map(drop);
        TcpListener::bind(("0.0.0.0", PUBLISHED)).map(drop).and(udp)
    });
    assert_eq!(taken.unwrap().unwrap_err().kind(), ErrorKind::AddrInUse);
    lab.ports.clear();
    lab.apply();
    serve(&lab.host(2), PUBLISHED, "node");
    assert_eq!(ask_tcp(&lab.machine(), lab.node_address(2), PUBLISHED).unwrap(), "node 10.250.0.1");
}

#[test]
fn a_port_that_a_process_of_the_node_has_is_left_to_it_and_told() {
    let mut lab = published();
    let server = run_in(&lab.host(1), || TcpListener::bind((LOCALHOST, 9090)).unwrap()).unwrap();
    // By name, not by chance: the process is this one.
    let own = std::process::id().to_string();
    lab.ports.insert((Tcp, 9090), BACKENDS.to_vec());
    lab.host_ports.insert((Udp, 9090), (1, 2));
    let (first, second) = (lab.desired(1), lab.desired(2));
    assert!(lab.hosts.get_mut(&2).unwrap().apply(&second).is_whole());
    let outcome = lab.hosts.get_mut(&1).unwrap().apply(&first);
    let told: Vec<&String> = outcome.ports.values().collect();
    assert_eq!(outcome.ports.keys().collect::<Vec<_>>(), [&(Tcp, 9090)]);
    assert!(told[0].contains("9090/tcp is in use") && told[0].contains(&own), "{told:?}");
    // The server is reached, other ports of this node and the port on other nodes are published.
    let stream = run_in(&lab.host(1), || TcpStream::connect((LOCALHOST, 9090)).unwrap());
    assert_eq!(server.accept().unwrap().1, stream.unwrap().local_addr().unwrap());
    assert!(ask_tcp(&lab.machine(), lab.node_address(2), 9090).is_ok());
    assert!(ask_udp(&lab.machine(), lab.node_address(1), 9090).unwrap().starts_with("c1-2"));
    drop(server);
    // It is looked at again when what failed is tried again.
    assert_eq!(lab.hosts.get_mut(&1).unwrap().apply(&first).ports.len(), 1);
    assert!(lab.hosts.get_mut(&1).unwrap().retry(&first).is_whole());
    assert!(ask_tcp(&lab.machine(), lab.node_address(1), 9090).is_ok());
}

#[test]
fn a_host_mode_port_leads_to_the_container_of_that_node_alone() {
    let mut lab = published();
    lab.host_ports.insert((Tcp, 9090), (2, 1));
    lab.apply();
    let by = |host| ask_tcp(&lab.machine(), lab.node_address(host), 9090);
    assert_eq!(by(2).unwrap(), "c2-1 10.250.0.1");
    assert_eq!(by(1).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    assert_eq!(ask_tcp(&lab.host(2), LOCALHOST, 9090).unwrap(), "c2-1 172.30.0.1");
}

#[test]
fn host_mode_ports_and_the_way_out_work_without_a_mesh() {
    let mut lab = published();
    let mut desired = lab.desired(2);
    desired.mesh = discovery::MeshRules {
        host_ports: [((Tcp, 9090), (crate::support::gateway_address((2, 1)).into(), PORT))].into(),
        ..discovery::MeshRules::default()
    };
    assert!(lab.hosts.get_mut(&2).unwrap().apply(&desired).is_whole());
    assert_eq!(ask_tcp(&lab.machine(), lab.node_address(2), 9090).unwrap(), "c2-1 10.250.0.1");
    assert!(!crate::support::run(&lab.host(2), &["ip", "link"]).contains("skep_mesh"));
    serve(&lab.machine(), 80, "outside");
    let outside = lab.underlay.address(0);
    assert_eq!(ask_tcp(&lab.container((2, 1)), outside, 80).unwrap(), "outside 10.250.0.3");
    assert_eq!(ask_udp(&lab.container((2, 1)), outside, 80).unwrap(), "outside 10.250.0.3");
}

#[test]
fn established_connections_survive_changes_of_ports_tasks_and_nodes() {
    let mut lab = published();
    let by = lab.node_address(1);
    let mut held: Vec<Held> =
        (0..6).map(|_| Held::open(&lab.machine(), by, PUBLISHED).unwrap()).collect();
    lab.ports.insert((Tcp, PUBLISHED), vec![(1, 2)]);
    lab.ports.insert((Tcp, 8081), vec![(2, 1)]);
    lab.apply();
    ask_all(&mut held);
    assert_eq!(ask_tcp(&lab.machine(), by, 8081).unwrap(), "c2-1 10.250.0.1");
    lab.add((2, 5));
    lab.apply();
    lab.restart();
    lab.apply();
    ask_all(&mut held);
    let answers = survey(&lab.machine(), by, PUBLISHED, 6);
    assert!(answers.contains("tcp c1-2 10.250.0.1 x6"), "{answers}");
}

#[test]
fn a_udp_client_leaves_a_task_that_is_taken_out() {
    let mut lab = published();
    let socket = udp_client(&lab.machine());
    let by = lab.node_address(1);
    for _ in 0..2 {
        let first = ask_by(&socket, by, PUBLISHED).unwrap();
        lab.ports
            .get_mut(&(Udp, PUBLISHED))
            .unwrap()
            .retain(|name| !first.starts_with(&format!("c{}-{} ", name.0, name.1)));
        lab.apply();
        assert_ne!(ask_by(&socket, by, PUBLISHED).unwrap(), first);
    }
}

#[test]
fn containers_cannot_reach_what_a_node_serves_on_localhost() {
    let lab = published();
    let server = run_in(&lab.host(1), || TcpListener::bind("127.0.0.1:9099").unwrap());
    let container = lab.container((1, 1));
    crate::support::run(&container, &["sysctl", "-qw", "net.ipv4.conf.all.route_localnet=1"]);
    crate::support::run(
        &container,
        &["ip", "route", "del", "table", "local", "127.0.0.0/8", "dev", "lo"],
    );
    crate::support::run(&container, &["ip", "addr", "del", "127.0.0.1/8", "dev", "lo"]);
    crate::support::run(&container, &["ip", "route", "add", "127.0.0.0/8", "via", "172.30.0.1"]);
    let server = server.unwrap();
    server.set_nonblocking(true).unwrap();
    assert!(ask_tcp(&container, LOCALHOST, 9099).is_err());
    assert_eq!(server.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
}

#[test]
fn a_mesh_that_cannot_be_changed_is_made_anew_and_keeps_its_ports() {
    let mut lab = published();
    crate::support::run(&lab.host(1), &["ip", "link", "delete", "skep_mesh"]);
    // A change of neighbours alone, which fails where the tunnel is no more.
    lab.add((2, 5));
    lab.ports.get_mut(&(Tcp, PUBLISHED)).unwrap().push((2, 5));
    let desired = lab.desired(1);
    let outcome = lab.hosts.get_mut(&1).unwrap().apply(&desired);
    assert_eq!(outcome.mesh, None);
    lab.apply();
    lab.serve((2, 5));
    let answers = survey(&lab.machine(), lab.node_address(1), PUBLISHED, 8);
    assert!(answers.contains("tcp c2-5 10.250.0.1 x2"), "{answers}");
}
