//! Containers of one network reach each other on whatever node.

use crate::support::{Lab, PATIENCE, PORT, address, ask_tcp, ask_udp, eventually, ping, run};
use discovery::Interface;
use ipnet::Ipv4Net;
use linux::run_in;
use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;
use types::Subnet;

fn check_reach(lab: &Lab) {
    for to in [(1, 2), (2, 1), (3, 1)] {
        let from = lab.container((1, 1));
        assert!(ping(&from, address(to)), "ping {to:?}");
        let expected = format!("c{}-{} 10.0.1.11", to.0, to.1);
        assert_eq!(ask_tcp(&from, address(to), PORT).unwrap(), expected);
        assert_eq!(ask_udp(&from, address(to), PORT).unwrap(), expected);
    }
}

fn serving(mut lab: Lab) -> Lab {
    lab.apply();
    for name in [(1, 2), (2, 1), (3, 1)] {
        lab.serve(name);
    }
    lab
}

#[test]
fn containers_reach_each_other_on_one_node_and_across_nodes() {
    check_reach(&serving(Lab::new(3, 2)));
}

#[test]
fn another_data_path_port_is_honoured() {
    let mut lab = Lab::new(3, 2);
    lab.data_path_port = 4790;
    let mut lab = serving(lab);
    check_reach(&lab);
    assert!(run(&lab.host(1), &["ss", "-lnu"]).contains(":4790"));
    lab.data_path_port = 4791;
    lab.apply();
    check_reach(&lab);
    assert!(!run(&lab.host(1), &["ss", "-lnu"]).contains(":4790"));
}

#[test]
fn multicast_and_broadcast_reach_every_node() {
    const GROUP: Ipv4Addr = Ipv4Addr::new(239, 192, 0, 11);
    let lab = {
        let mut lab = Lab::new(3, 2);
        lab.apply();
        lab
    };
    let listeners: Vec<UdpSocket> = [(1, 2), (2, 1), (3, 1)]
        .map(|name| {
            let socket = run_in(&lab.container(name), || {
                let socket = UdpSocket::bind("0.0.0.0:9000").unwrap();
                socket.join_multicast_v4(&GROUP, &Ipv4Addr::UNSPECIFIED).unwrap();
                socket
            });
            socket.unwrap()
        })
        .into();
    let sender = run_in(&lab.container((1, 1)), || UdpSocket::bind("0.0.0.0:0").unwrap()).unwrap();
    sender.set_broadcast(true).unwrap();
    for to in [GROUP, [10, 0, 1, 255].into()] {
        for listener in &listeners {
            listener.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
            let mut buffer = [0; 10];
            eventually("a datagram to all arrives", || {
                sender.send_to(b"all", (to, 9000)).unwrap();
                let received = listener.recv_from(&mut buffer);
                received.is_ok_and(|(_, from)| from.ip() == address((1, 1)))
            });
            while listener.recv_from(&mut buffer).is_ok() {}
        }
    }
}

#[test]
fn a_container_that_moves_is_found_on_its_new_node() {
    let mut lab = serving(Lab::new(3, 2));
    assert!(ping(&lab.container((1, 1)), address((2, 2))));
    // The same address on another node: container 2 of node 2 goes, then node 3 has it.
    let mut desired = lab.desired(3);
    let name = lab.container((2, 2));
    let mut moved = lab.desired(2).sandboxes.remove("c2-2").unwrap();
    lab.remove((2, 2));
    lab.apply();
    wait_gone(&name);
    lab.add((3, 9));
    moved.netns = lab.container((3, 9)).display().to_string();
    desired.sandboxes.insert("moved".into(), moved);
    let on_third = lab.node_address(3);
    for host in [1, 2] {
        let mut there = lab.desired(host);
        let overlay = there.overlays.values_mut().next().unwrap();
        overlay.remotes.insert(address((2, 2)).into(), on_third.into());
        apply(&mut lab, host, &there);
    }
    desired.overlays.values_mut().next().unwrap().remotes.remove(&address((2, 2)).into());
    apply(&mut lab, 3, &desired);
    for from in [(1, 1), (2, 1), (3, 1)] {
        assert!(ping(&lab.container(from), address((2, 2))), "from {from:?}");
    }
}

fn apply(lab: &mut Lab, host: u8, desired: &discovery::Desired) {
    assert!(lab.hosts.get_mut(&host).unwrap().apply(desired).is_whole());
}

fn wait_gone(path: &std::path::Path) {
    crate::support::wait(dataplane::Namespaces::remove(&linux::Namespaces, path)).unwrap();
}

#[test]
fn a_vni_is_free_again_as_soon_as_its_overlay_has_gone() {
    let mut lab = Lab::new(2, 1);
    lab.apply();
    assert!(ping(&lab.container((1, 1)), address((2, 1))));
    for round in 2..4 {
        lab.network = format!("net{round}").as_str().into();
        lab.apply();
        assert!(ping(&lab.container((1, 1)), address((2, 1))), "round {round}");
        let folder = &lab.hosts[&1].config.overlays;
        assert_eq!(std::fs::read_dir(folder).unwrap().count(), 1);
    }
}

#[test]
fn a_cut_node_is_reached_again_when_it_is_healed() {
    let lab = {
        let mut lab = Lab::new(2, 1);
        lab.apply();
        lab.serve((2, 1));
        lab
    };
    lab.underlay.cut(2).unwrap();
    let socket = crate::support::udp_client(&lab.container((1, 1)));
    socket.set_read_timeout(Some(PATIENCE / 10)).unwrap();
    assert!(crate::support::ask_by(&socket, address((2, 1)), PORT).is_err());
    lab.underlay.heal(2).unwrap();
    eventually("the node is reached again", || {
        crate::support::ask_by(&socket, address((2, 1)), PORT).is_ok()
    });
}

#[test]
fn a_container_joins_a_second_network_and_leaves_the_first() {
    let mut lab = Lab::new(2, 1);
    lab.apply();
    let (one, two) = (lab.container((1, 1)), lab.container((2, 1)));
    let second: types::NetworkId = "net2".into();
    let mut both = [lab.desired(1), lab.desired(2)];
    for (host, desired) in (1..).zip(&mut both) {
        let mut overlay = desired.overlays.values().next().unwrap().clone();
        overlay.vni += 1;
        overlay.subnets = Subnet::new("10.0.2.0/24".parse().unwrap()).into_iter().collect();
        let other = 3 - host;
        overlay.remotes = [([10, 0, 2, 10 + other].into(), lab.node_address(other).into())].into();
        desired.overlays.insert(second.clone(), overlay);
        let sandbox = desired.sandboxes.values_mut().next().unwrap();
        let addresses = vec![Ipv4Net::new([10, 0, 2, 10 + host].into(), 24).unwrap().into()];
        sandbox.interfaces.push(Interface { network: second.clone(), addresses });
    }
    for (host, desired) in (1..).zip(&both) {
        apply(&mut lab, host, desired);
    }
    let addresses = |place| {
        let text = run(place, &["ip", "-o", "-4", "addr"]);
        let words = text.lines().map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            format!("{} {}", words[1], words[3])
        });
        words.collect::<Vec<_>>().join(", ")
    };
    let expected = "lo 127.0.0.1/8, eth0 10.0.1.11/24, eth1 10.0.2.11/24, eth2 172.30.0.11/16";
    assert_eq!(addresses(&one), expected);
    assert!(ping(&one, address((2, 1))) && ping(&one, [10, 0, 2, 12].into()));
    assert!(ping(&one, [172, 30, 0, 1].into()));

    for (host, desired) in (1..).zip(&mut both) {
        desired.overlays.remove(&lab.network);
        let sandbox = desired.sandboxes.values_mut().next().unwrap();
        sandbox.interfaces.remove(0);
        sandbox.default_route = false;
        apply(&mut lab, host, desired);
    }
    assert_eq!(addresses(&two), "lo 127.0.0.1/8, eth0 10.0.2.12/24, eth1 172.30.0.11/16");
    assert!(ping(&two, [10, 0, 2, 11].into()));
    let routes = run(&two, &["ip", "route"]);
    assert!(routes.contains("224.0.0.0/4 dev eth0") && !routes.contains("default"), "{routes}");
}

#[test]
fn an_endpoint_that_is_not_known_here_yet_is_reached_by_flooding() {
    let mut lab = Lab::new(2, 1);
    lab.apply();
    let mut desired = lab.desired(1);
    desired.overlays.values_mut().next().unwrap().remotes.clear();
    apply(&mut lab, 1, &desired);
    assert!(ping(&lab.container((1, 1)), address((2, 1))));
}

/// The MTU of an interface.
fn mtu(place: &std::path::Path, link: &str) -> String {
    let text = run(place, &["ip", "-o", "link", "show", link]);
    text.split("mtu ").nth(1).unwrap().split(' ').next().unwrap().to_owned()
}

#[test]
fn interfaces_follow_the_mtu_of_the_underlay_or_what_the_networks_creator_said() {
    let mut lab = Lab::new(2, 1);
    let check = |lab: &Lab, wanted: &str| {
        let overlay = lab.hosts[&1].config.overlays.join("overlay-net1");
        for (place, link) in [
            (&lab.container((1, 1)), "eth0"),
            (&overlay, "vx0"),
            (&overlay, "br0"),
            (&overlay, "v0a00010b"),
            (&lab.host(1), "skep_mesh"),
        ] {
            assert_eq!(mtu(place, link), wanted, "{link}");
        }
        assert_eq!(mtu(&lab.container((1, 1)), "eth1"), "1500");
    };
    let underlay = |lab: &Lab, mtu: &str| {
        run(&lab.host(1), &["ip", "link", "set", "eth0", "mtu", mtu]);
    };
    underlay(&lab, "1400");
    lab.apply();
    check(&lab, "1350");
    underlay(&lab, "1300");
    lab.repair();
    check(&lab, "1250");
    underlay(&lab, "1500");
    lab.repair();
    check(&lab, "1450");
    // As in Docker, the tunnel's headers come off what was said.
    lab.mtu = 1280;
    lab.apply();
    check(&lab, "1230");
    assert!(ping(&lab.container((1, 1)), address((2, 1))));
}
