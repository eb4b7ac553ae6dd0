//! What a container or a stranger on the underlay cannot do, whatever it sends.

use crate::support::{
    Lab, PORT, address, ask_tcp, eventually, gateway_address, ingress_address, node_ingress, run,
    serve, survey,
};
use linux::run_in;
use std::net::{Ipv4Addr, TcpStream, UdpSocket};
use std::path::Path;
use std::time::Duration;
use types::Protocol::{Tcp, Udp};

const TASK: (u8, u8) = (1, 1);
const NEIGHBOUR: (u8, u8) = (1, 2);
const FAR_TASK: (u8, u8) = (2, 1);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 1);
const MESH_VNI: u32 = 4096;
/// A port of the task that nobody publishes.
const PRIVATE: u16 = 7001;
/// What is dropped stays silent so long; a way within one machine takes less than 1 ms.
const SILENCE: Duration = Duration::from_millis(300);

/// Two nodes; the first's task and its neighbour are published.
fn lab() -> Lab {
    let mut lab = Lab::new(2, 2);
    for protocol in [Tcp, Udp] {
        lab.ports.insert((protocol, 8080), vec![TASK]);
        lab.ports.insert((protocol, 8081), vec![NEIGHBOUR]);
    }
    lab.apply();
    lab.serve_all(&[TASK, NEIGHBOUR, FAR_TASK]);
    lab
}

fn ip(place: &Path, command: &str) {
    run(place, &command.split(' ').collect::<Vec<_>>());
}

fn mac(address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    [0x02, 0x42, a, b, c, d]
}

fn mac_text(address: Ipv4Addr) -> String {
    mac(address).map(|byte| format!("{byte:02x}")).join(":")
}

/// A socket in `place` that hears datagrams.
fn ear(place: &Path, port: u16) -> UdpSocket {
    let ear = run_in(place, || UdpSocket::bind(("0.0.0.0", port)).unwrap()).unwrap();
    ear.set_read_timeout(Some(SILENCE)).unwrap();
    ear
}

fn hears(ear: &UdpSocket, what: &str) -> bool {
    let mut buffer = [0; 100];
    while let Ok((length, _)) = ear.recv_from(&mut buffer) {
        if &buffer[..length] == what.as_bytes() {
            return true;
        }
    }
    false
}

/// A frame as a tunnel carries it: VXLAN, Ethernet, IPv4, UDP.
fn tunnelled(
    vni: u32,
    macs: (Ipv4Addr, Ipv4Addr),
    (from, to): (Ipv4Addr, Ipv4Addr),
    port: u16,
    what: &str,
) -> Vec<u8> {
    let mut frame = vec![0x08, 0, 0, 0];
    frame.extend((vni << 8).to_be_bytes());
    frame.extend(mac(macs.1));
    frame.extend(mac(macs.0));
    frame.extend([0x08, 0x00]);
    let length = u16::try_from(what.len()).unwrap();
    let mut header = vec![0x45, 0];
    header.extend((28 + length).to_be_bytes());
    header.extend([0, 1, 0, 0, 64, 17, 0, 0]);
    header.extend(from.octets());
    header.extend(to.octets());
    let words = header.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]));
    let sum: u32 = words.sum();
    let sum = !u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap();
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    frame.extend(header);
    frame.extend(9_u16.to_be_bytes());
    frame.extend(port.to_be_bytes());
    frame.extend((8 + length).to_be_bytes());
    // Without a checksum, which UDP allows.
    frame.extend([0, 0]);
    frame.extend(what.as_bytes());
    frame
}

/// Frames for the first task: by its overlay, and by the mesh as from the second node.
fn frames(what: &str) -> [Vec<u8>; 2] {
    let overlay = (address(FAR_TASK), address(TASK));
    let nodes = (node_ingress(2), node_ingress(1));
    // From a client that the node knows a way to.
    let mesh = (Ipv4Addr::new(10, 250, 0, 1), ingress_address(TASK));
    [tunnelled(4097, overlay, overlay, 9000, what), tunnelled(MESH_VNI, nodes, mesh, 9000, what)]
}

#[test]
fn tunnels_take_frames_from_nodes_alone() {
    let mut lab = Lab::new(2, 2);
    // Port 9000 of the task is published, so that the mesh would let it in.
    lab.ports.insert((Udp, 9001), vec![TASK]);
    lab.target = 9000;
    lab.apply();
    let ear = ear(&lab.container(TASK), 9000);
    let inject = |place: &Path, from: Option<Ipv4Addr>, to: Ipv4Addr, what: &str| {
        run_in(place, || {
            let from = from.unwrap_or(Ipv4Addr::UNSPECIFIED);
            let socket = UdpSocket::bind((from, 0)).unwrap();
            socket.set_broadcast(true).unwrap();
            for frame in frames(what) {
                // It may be refused at once, too.
                drop(socket.send_to(&frame, (to, 4789)));
            }
        })
        .unwrap();
    };
    let node = lab.node_address(1);
    inject(&lab.host(2), None, node, "from a node");
    assert!(hears(&ear, "from a node"), "by the overlay");
    assert!(hears(&ear, "from a node"), "by the mesh");
    inject(&lab.machine(), None, node, "from a stranger");
    assert!(!hears(&ear, "from a stranger"));
    // To all on the link, this node among them.
    for to in [Ipv4Addr::BROADCAST, [10, 250, 0, 255].into(), [224, 0, 0, 1].into()] {
        inject(&lab.machine(), Some(lab.underlay.address(0)), to, "to all");
        assert!(!hears(&ear, "to all"), "{to}");
    }
    for place in [lab.container(NEIGHBOUR), lab.container((2, 2)), lab.container(TASK)] {
        for to in [GATEWAY, node, lab.node_address(2), address((1, 9))] {
            inject(&place, None, to, "from a container");
        }
        assert!(!hears(&ear, "from a container"));
    }
    // One that gives itself another node's address, and its own node's.
    let liar = lab.container((2, 2));
    for lie in [lab.node_address(2), Ipv4Addr::new(10, 250, 0, 77)] {
        ip(&liar, &format!("ip addr add {lie}/32 dev lo"));
        inject(&liar, Some(lie), node, "from a liar");
        assert!(!hears(&ear, "from a liar"), "{lie}");
    }
    inject(&lab.host(2), None, node, "from a node");
    assert!(hears(&ear, "from a node"));
    // A node that has gone is a stranger.
    lab.hosts.remove(&2);
    lab.containers.retain(|name| name.0 == 1);
    lab.apply();
    inject(&lab.machine(), None, node, "from a stranger");
    assert!(!hears(&ear, "from a stranger"));
}

#[test]
fn a_node_has_no_say_on_networks_that_it_has_no_part_in() {
    let mut lab = Lab::new(3, 0);
    let (task, far) = (TASK, (3, 1));
    lab.add(task);
    lab.add(far);
    lab.ports.insert((Udp, 9001), vec![task]);
    lab.target = 9000;
    lab.apply();
    let ear = ear(&lab.container(task), 9000);
    let inject = |lab: &Lab, from: u8, frame: &[u8]| {
        run_in(&lab.host(from), || {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            socket.send_to(frame, (lab.node_address(1), 4789)).unwrap();
        })
        .unwrap();
    };
    let as_far = (address(far), address(task));
    inject(&lab, 2, &tunnelled(4097, as_far, as_far, 9000, "from elsewhere"));
    assert!(!hears(&ear, "from elsewhere"));
    inject(&lab, 3, &tunnelled(4097, as_far, as_far, 9000, "from its node"));
    assert!(hears(&ear, "from its node"));
    // Every node has a part in the mesh.
    let [_, by_mesh] = frames("by the mesh");
    inject(&lab, 2, &by_mesh);
    assert!(hears(&ear, "by the mesh"));
    // A task comes to it, and goes again.
    lab.add((2, 1));
    lab.apply();
    let as_near = (address((2, 1)), address(task));
    let frame = tunnelled(4097, as_near, as_near, 9000, "from a new one");
    inject(&lab, 2, &frame);
    assert!(hears(&ear, "from a new one"));
    lab.remove((2, 1));
    lab.apply();
    inject(&lab, 2, &frame);
    assert!(!hears(&ear, "from a new one"));
}

#[test]
fn the_tunnels_of_others_on_the_same_port_are_left_alone() {
    let lab = lab();
    let (here, there) = (lab.host(1), lab.machine());
    for (place, remote, own) in
        [(&here, lab.underlay.address(0), 1), (&there, lab.node_address(1), 2)]
    {
        ip(place, &format!("ip link add others type vxlan id 77 dstport 4789 remote {remote}"));
        ip(place, &format!("ip addr add 192.0.2.{own}/24 dev others"));
        ip(place, "ip link set others up");
    }
    serve(&here, 2222, "node");
    let answer = ask_tcp(&there, [192, 0, 2, 1].into(), 2222);
    assert_eq!(answer.unwrap(), "node 192.0.2.2");
}

#[test]
fn the_mesh_reaches_published_ports_and_nothing_else() {
    let lab = lab();
    let (here, there) = (lab.host(1), lab.host(2));
    serve(&lab.container(TASK), PRIVATE, "private");
    let far = |to: Ipv4Addr, port: u16| {
        run_in(&there, || TcpStream::connect_timeout(&(to, port).into(), SILENCE)).unwrap()
    };
    assert!(far(ingress_address(TASK), PORT).is_ok());
    assert!(far(ingress_address(TASK), PRIVATE).is_err());
    // Not published at all.
    assert!(far(ingress_address((1, 3)), PORT).is_err());
    // Neither the node itself, nor what is behind it.
    let hardware = mac_text(node_ingress(1));
    ip(&there, &format!("ip neigh replace 10.255.0.1 lladdr {hardware} dev skep_mesh"));
    ip(&there, "ip route add 192.0.2.1/32 via 10.255.0.1 dev skep_mesh");
    ip(&here, &format!("ip route add 192.0.2.1/32 via {}", lab.underlay.address(0)));
    ip(&lab.machine(), "ip addr add 192.0.2.1/32 dev lo");
    let (outside, node) = (ear(&lab.machine(), 9000), ear(&here, 9000));
    run_in(&there, || {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.send_to(b"past the mesh", ("192.0.2.1", 9000)).unwrap();
        socket.send_to(b"past the mesh", (node_ingress(1), 9000)).unwrap();
    })
    .unwrap();
    assert!(!hears(&outside, "past the mesh") && !hears(&node, "past the mesh"));
    // What is published is answered, by either node and from either node.
    for node in [1, 2] {
        for client in [lab.machine(), lab.host(1), lab.host(2)] {
            let answers = survey(&client, lab.node_address(node), 8080, 2);
            assert_eq!(answers.matches("x2").count(), 2, "{answers}");
            assert_eq!(answers.matches("c1-1").count(), 2, "{answers}");
        }
    }
}

/// The first node has a bridge of others, for which bridged frames pass the rules for packets.
fn beside_another_bridge(mut lab: Lab) -> Lab {
    ip(&lab.host(1), "ip link add docker0 type bridge");
    ip(&lab.host(1), "sysctl -qw net.bridge.bridge-nf-call-iptables=1");
    lab.repair();
    lab
}

#[test]
fn a_container_on_internal_networks_alone_has_no_way_out_under_any_address() {
    no_way_out_from_inside(lab());
}

#[test]
fn nor_has_it_beside_a_bridge_of_others() {
    no_way_out_from_inside(beside_another_bridge(lab()));
}

#[test]
fn a_container_takes_no_other_ones_way_out() {
    for lab in [lab(), beside_another_bridge(lab())] {
        serve(&lab.machine(), 80, "outside");
        let (thief, victim) = (lab.container(NEIGHBOUR), lab.container(TASK));
        let ways = || run(&victim, &["ip", "neigh", "show", "dev", "eth1"]);
        let goes_out = || {
            let answer = ask_tcp(&victim, lab.underlay.address(0), 80);
            assert_eq!(answer.unwrap(), "outside 10.250.0.2");
        };
        goes_out();
        // It asks for the victim in the gateway's name, and answers in its name.
        ip(&thief, &format!("ip addr add {GATEWAY}/32 dev eth1"));
        ip(&thief, &format!("ip route replace {}/32 dev eth1", gateway_address(TASK)));
        for _ in 0..3 {
            ip(&victim, "ip neigh flush dev eth1");
            run_in(&thief, || {
                let socket = UdpSocket::bind((GATEWAY, 0)).unwrap();
                drop(socket.send_to(b"I am the gateway", (gateway_address(TASK), 9000)));
            })
            .unwrap();
            goes_out();
            let ear = ear(&victim, 9000);
            assert!(!hears(&ear, "I am the gateway"));
            let thief = mac_text(gateway_address(NEIGHBOUR));
            assert!(!ways().contains(&thief), "{}", ways());
        }
        goes_out();
    }
}

fn no_way_out_from_inside(mut lab: Lab) {
    lab.inside.insert(TASK);
    lab.apply();
    let container = lab.container(TASK);
    let outside = ear(&lab.machine(), 9000);
    let node = ear(&lab.host(1), 9000);
    let try_out = |from: Ipv4Addr, what: &str| {
        run_in(&container, || {
            let socket = UdpSocket::bind((from, 0)).unwrap();
            for to in [lab.underlay.address(0), GATEWAY, lab.node_address(1)] {
                drop(socket.send_to(what.as_bytes(), (to, 9000)));
            }
        })
        .unwrap();
        assert!(!hears(&outside, what), "{from} reaches the outside");
        assert!(!hears(&node, what), "{from} reaches the node");
        // Nor a neighbour, by the port that it publishes.
        let answer = run_in(&container, || {
            let socket = UdpSocket::bind((from, 0)).unwrap();
            socket.set_read_timeout(Some(SILENCE)).unwrap();
            drop(socket.send_to(what.as_bytes(), (lab.node_address(1), 8081)));
            socket.recv(&mut [0; 100]).is_ok()
        });
        assert!(!answer.unwrap(), "{from} reaches a published port");
    };
    ip(&container, &format!("ip route add default via {GATEWAY}"));
    try_out(gateway_address(TASK), "as itself");
    let (nobody, neighbour) = (Ipv4Addr::new(172, 30, 0, 77), gateway_address(NEIGHBOUR));
    for lie in [nobody, neighbour, Ipv4Addr::new(192, 0, 2, 5), address(TASK)] {
        run(&container, &["ip", "addr", "replace", &format!("{lie}/32"), "dev", "eth1"]);
        try_out(lie, "under another address");
    }
    // With the hardware address of the neighbour, too.
    ip(&container, &format!("ip link set eth1 address {}", mac_text(neighbour)));
    try_out(neighbour, "as its neighbour");
    let check_neighbour = || {
        let answers = survey(&lab.machine(), lab.node_address(1), 8081, 3);
        assert_eq!(answers.matches("c1-2 10.250.0.1 x3").count(), 2, "{answers}");
        let answer = ask_tcp(&lab.container(NEIGHBOUR), lab.underlay.address(0), 80);
        assert_eq!(answer.unwrap(), "outside 10.250.0.2");
    };
    serve(&lab.machine(), 80, "outside");
    check_neighbour();
    // The node asks nobody, so nobody can answer for another one.
    ip(&lab.host(1), "ip neigh flush dev skep_gwbridge");
    check_neighbour();
    let known = run(&lab.host(1), &["ip", "neigh", "show", "dev", "skep_gwbridge"]);
    assert!(known.lines().all(|line| line.contains("PERMANENT")), "{known}");
}

#[test]
fn a_container_that_others_have_let_loose_is_guarded_again() {
    let mut lab = lab();
    let host = lab.host(1);
    let port = format!("skep{:08x}", u32::from(gateway_address(TASK)));
    ip(&host, &format!("bridge link set dev {port} locked off learning on isolated off flood on"));
    ip(&host, &format!("ip neigh del {} dev skep_gwbridge", gateway_address(TASK)));
    ip(&host, &format!("bridge fdb del {} dev {port} master", mac_text(gateway_address(TASK))));
    lab.repair();
    let flags = run(&host, &["bridge", "-d", "link", "show", "dev", &port]);
    for flag in ["locked on", "learning off", "isolated on", " flood off"] {
        assert!(flags.contains(flag), "{flag}: {flags}");
    }
    let known = run(&host, &["ip", "neigh", "show", "dev", "skep_gwbridge"]);
    assert!(known.contains(&format!("{} lladdr", gateway_address(TASK))), "{known}");
    assert!(ask_tcp(&lab.machine(), lab.node_address(1), 8080).is_ok());
    // A bridge that is made anew has its gate again.
    ip(&host, "ip link del skep_gwbridge");
    lab.repair();
    assert!(ask_tcp(&lab.machine(), lab.node_address(1), 8080).is_ok());
    eventually("the gate is there", || {
        run(&host, &["nft", "list", "table", "bridge", "skep_mesh"]).contains("skepac1e*")
    });
}

#[test]
fn a_container_takes_over_nothing_that_is_for_another_on_its_network() {
    let lab = lab();
    let thief = lab.container((1, 2));
    let check = |lab: &Lab| {
        let answer = ask_tcp(&lab.container((2, 2)), address(TASK), PORT);
        assert_eq!(answer.unwrap(), format!("c1-1 {}", address((2, 2))));
        let answer = ask_tcp(&lab.container(TASK), address(FAR_TASK), PORT);
        assert_eq!(answer.unwrap(), format!("c2-1 {}", address(TASK)));
    };
    check(&lab);
    for victim in [TASK, FAR_TASK] {
        ip(&thief, &format!("ip link set eth0 address {}", mac_text(address(victim))));
        run_in(&thief, || {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            socket.set_broadcast(true).unwrap();
            for _ in 0..5 {
                drop(socket.send_to(b"I am another", ("10.0.1.255", 9)));
            }
        })
        .unwrap();
        check(&lab);
    }
}

#[test]
fn a_container_speaks_in_no_other_ones_name_on_its_network() {
    let mut lab = lab();
    let far_neighbour = lab.container((2, 2));
    let check = |lab: &Lab| {
        let (thief, victim) = (lab.container(NEIGHBOUR), lab.container(TASK));
        for target in [TASK, FAR_TASK] {
            let (ear, client) = (ear(&lab.container(target), 9000), far_neighbour.clone());
            let lie = address((1, 9));
            ip(&thief, &format!("ip addr replace {lie}/32 dev eth0"));
            let tell = |place: &Path, from: Ipv4Addr, what: &str| {
                run_in(place, || {
                    let socket = UdpSocket::bind((from, 0)).unwrap();
                    drop(socket.send_to(what.as_bytes(), (address(target), 9000)));
                })
                .unwrap();
            };
            tell(&thief, lie, "as another");
            assert!(!hears(&ear, "as another"), "{target:?}");
            // What waits for an answer to the lie waits no more.
            ip(&thief, "ip neigh flush dev eth0");
            tell(&thief, address(NEIGHBOUR), "as itself");
            assert!(hears(&ear, "as itself"), "{target:?}");
            tell(&client, address((2, 2)), "from elsewhere");
            assert!(hears(&ear, "from elsewhere"), "{target:?}");
            ip(&thief, &format!("ip addr del {lie}/32 dev eth0"));
        }
        // It asks for one task in the name of another, so that its own hardware address is noted.
        let stolen = address(FAR_TASK);
        ip(&thief, &format!("ip addr replace {stolen}/32 dev eth0"));
        ip(&thief, "ip neigh flush dev eth0");
        run_in(&thief, || {
            let socket = UdpSocket::bind((stolen, 0)).unwrap();
            drop(socket.send_to(b"who are you", (address(TASK), 9)));
        })
        .unwrap();
        let answer = ask_tcp(&victim, stolen, PORT);
        assert_eq!(answer.unwrap(), format!("c2-1 {}", address(TASK)));
        let known = run(&victim, &["ip", "neigh", "show", "dev", "eth0"]);
        let theft = format!("{stolen} lladdr {}", mac_text(address(NEIGHBOUR)));
        assert!(!known.contains(&theft), "{known}");
        ip(&thief, &format!("ip addr del {stolen}/32 dev eth0"));
    };
    check(&lab);
    // Somebody has opened the gate.
    let overlay = lab.hosts[&1].config.overlays.join("overlay-net1");
    run(&overlay, &["nft", "flush", "chain", "bridge", "skep_overlay", "gate"]);
    lab.repair();
    check(&lab);
}
