//! Virtual addresses of services.

use crate::support::{
    Held, Lab, PORT, VIP, address, ask_all, ask_by, ask_tcp, eventually, ping, run, survey,
    udp_client,
};
use expect_test::expect;
use std::io::ErrorKind;
use std::time::Instant;

const BACKENDS: [(u8, u8); 3] = [(1, 2), (2, 1), (3, 1)];

fn balanced() -> Lab {
    let mut lab = Lab::new(3, 2);
    lab.vips.insert(VIP, BACKENDS.to_vec());
    lab.apply();
    lab.serve_all(&BACKENDS);
    lab
}

#[test]
fn a_vip_takes_turns_over_back_ends_on_all_nodes() {
    let lab = balanced();
    expect![[r"
        tcp c1-2 10.0.1.11 x2
        tcp c2-1 10.0.1.11 x2
        tcp c3-1 10.0.1.11 x2
        udp c1-2 10.0.1.11 x2
        udp c2-1 10.0.1.11 x2
        udp c3-1 10.0.1.11 x2
    "]]
    .assert_eq(&survey(&lab.container((1, 1)), VIP, PORT, 6));
    assert!(ping(&lab.container((1, 1)), VIP));
}

#[test]
fn a_back_end_reaches_itself_by_the_vip() {
    let mut lab = balanced();
    lab.vips.insert(VIP, vec![(1, 2)]);
    lab.apply();
    expect![[r"
        tcp c1-2 10.0.1.12 x2
        udp c1-2 10.0.1.12 x2
    "]]
    .assert_eq(&survey(&lab.container((1, 2)), VIP, PORT, 2));
    assert!(ping(&lab.container((1, 2)), VIP));
}

#[test]
fn a_vip_without_back_ends_refuses_at_once() {
    let mut lab = balanced();
    lab.vips.insert(VIP, Vec::new());
    lab.apply();
    #[expect(clippy::disallowed_methods, reason = "the test measures that nobody waits")]
    let start = Instant::now();
    let error = ask_tcp(&lab.container((1, 1)), VIP, PORT).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    let socket = udp_client(&lab.container((1, 1)));
    assert!(ask_by(&socket, VIP, PORT).is_err());
    assert!(start.elapsed().as_millis() < 500, "{:?}", start.elapsed());
    lab.vips.insert(VIP, vec![(2, 1)]);
    lab.apply();
    assert_eq!(ask_tcp(&lab.container((1, 1)), VIP, PORT).unwrap(), "c2-1 10.0.1.11");
}

#[test]
fn established_connections_stay_with_a_back_end_that_is_taken_out() {
    let mut lab = balanced();
    let client = lab.container((1, 1));
    let mut held: Vec<Held> = (0..6).map(|_| Held::open(&client, VIP, PORT).unwrap()).collect();
    assert_eq!(held.iter().filter(|held| held.greeting.starts_with("c2-1")).count(), 2);
    lab.vips.insert(VIP, vec![(1, 2), (3, 1)]);
    lab.apply();
    ask_all(&mut held);
    assert!(!survey(&client, VIP, PORT, 10).contains("c2-1"));
    ask_all(&mut held);
}

#[test]
fn a_udp_socket_leaves_a_back_end_that_is_taken_out() {
    let mut lab = balanced();
    let socket = udp_client(&lab.container((1, 1)));
    let first = ask_by(&socket, VIP, PORT).unwrap();
    assert_eq!(ask_by(&socket, VIP, PORT).unwrap(), first, "a socket keeps its back end");
    let gone = *BACKENDS
        .iter()
        .find(|name| first.starts_with(&format!("c{}-{}", name.0, name.1)))
        .unwrap();
    lab.vips.get_mut(&VIP).unwrap().retain(|name| *name != gone);
    lab.apply();
    assert_ne!(ask_by(&socket, VIP, PORT).unwrap(), first);
}

/// A search of tracked connections goes through one table of all namespaces, under a lock of the
/// whole machine.
#[test]
fn many_back_ends_that_leave_at_once_cost_little_more_than_one() {
    let mut lab = balanced();
    let crowd: Vec<_> = (60..160).map(|number| (3, number)).collect();
    let socket = udp_client(&lab.container((1, 1)));
    let mut leave = |leaving: &[(u8, u8)]| {
        lab.vips.insert(VIP, [&[(2, 1)], leaving].concat());
        lab.apply();
        lab.vips.insert(VIP, vec![(2, 1)]);
        #[expect(clippy::disallowed_methods, reason = "the test compares two costs")]
        let start = Instant::now();
        lab.apply();
        let took = start.elapsed();
        // It is tracked, so that next time there is something to search.
        assert!(ask_by(&socket, VIP, PORT).unwrap().starts_with("c2-1"));
        took
    };
    leave(&[]);
    let one = (0..3).map(|_| leave(&crowd[..1])).max().unwrap();
    let many = (0..3).map(|_| leave(&crowd)).min().unwrap();
    assert!(many < one * 8, "one: {one:?}, {} at once: {many:?}", crowd.len());
}

#[test]
fn connections_to_a_back_end_that_is_no_more_are_reset() {
    let mut lab = balanced();
    let client = lab.container((1, 1));
    let mut held: Vec<Held> = (0..3).map(|_| Held::open(&client, VIP, PORT).unwrap()).collect();
    lab.underlay.cut(3).unwrap();
    lab.remove((3, 1));
    lab.remove((3, 2));
    lab.apply();
    for held in &mut held {
        let outcome = held.ask();
        if held.greeting.starts_with("c3-1") {
            assert_eq!(outcome.unwrap_err().kind(), ErrorKind::ConnectionReset);
        } else {
            outcome.unwrap();
        }
    }
}

#[test]
fn a_container_with_the_address_of_a_former_one_is_served() {
    let mut lab = balanced();
    let path = lab.container((1, 1));
    assert!(ping(&path, VIP));
    lab.remove((1, 1));
    lab.apply();
    crate::support::wait(dataplane::Namespaces::remove(&linux::Namespaces, &path)).unwrap();
    lab.add((1, 1));
    lab.apply();
    eventually("the new container reaches others", || ping(&path, VIP));
    assert!(ping(&lab.container((3, 1)), address((1, 1))));
}

/// The table in a container, as `nft` prints it.
fn table(lab: &Lab, name: (u8, u8)) -> String {
    let text = run(&lab.container(name), &["nft", "list", "ruleset"]);
    // The generation and the digest of the rules.
    let stamp = text.lines().find(|line| line.contains("comment")).unwrap().to_owned();
    text.replace(&stamp, "\t\treturn comment STAMP")
}

#[test]
fn a_container_has_the_table_that_a_person_would_write() {
    let mut lab = Lab::new(1, 2);
    let [empty, other] = [201, 202].map(|last| [10, 0, 1, last].into());
    lab.vips = [(VIP, vec![(1, 1), (1, 2)]), (empty, Vec::new())].into();
    lab.apply();
    expect![[r"
        table ip skep {
        	map vips {
        		type ipv4_addr : verdict
        		elements = { 10.0.1.200 : jump vip_10_0_1_200, 10.0.1.201 : jump vip_10_0_1_201 }
        	}

        	set used {
        		type ipv4_addr . inet_proto
        		size 65536
        		flags dynamic
        	}

        	chain vip_10_0_1_200 {
        		add @used { ip daddr . meta l4proto }
        		dnat to numgen inc mod 2 map { 0 : 10.0.1.11, 1 : 10.0.1.12 }
        	}

        	chain vip_10_0_1_201 {
        		reject with tcp reset
        		reject
        	}

        	chain output {
        		type nat hook output priority -100; policy accept;
        		ip daddr vmap @vips
        		ip daddr 127.0.0.11 udp dport 53 dnat to 127.0.0.11:40053
        		ip daddr 127.0.0.11 tcp dport 53 dnat to 127.0.0.11:40053
        	}

        	chain stamp {
        		return comment STAMP
        	}
        }
    "]]
    .assert_eq(&table(&lab, (1, 1)));
    lab.vips = [(VIP, vec![(1, 2)]), (other, vec![(1, 1)])].into();
    lab.apply();
    expect![[r"
        table ip skep {
        	map vips {
        		type ipv4_addr : verdict
        		elements = { 10.0.1.200 : jump vip_10_0_1_200, 10.0.1.202 : jump vip_10_0_1_202 }
        	}

        	set used {
        		type ipv4_addr . inet_proto
        		size 65536
        		flags dynamic
        	}

        	chain vip_10_0_1_200 {
        		add @used { ip daddr . meta l4proto }
        		dnat to numgen inc mod 1 map { 0 : 10.0.1.12 }
        	}

        	chain output {
        		type nat hook output priority -100; policy accept;
        		ip daddr vmap @vips
        		ip daddr 127.0.0.11 udp dport 53 dnat to 127.0.0.11:40053
        		ip daddr 127.0.0.11 tcp dport 53 dnat to 127.0.0.11:40053
        	}

        	chain stamp {
        		return comment STAMP
        	}

        	chain vip_10_0_1_202 {
        		add @used { ip daddr . meta l4proto }
        		dnat to numgen inc mod 1 map { 0 : 10.0.1.11 }
        	}
        }
    "]]
    .assert_eq(&table(&lab, (1, 1)));
}

#[test]
fn so_many_vips_that_they_do_not_fit_into_a_small_message_are_made_at_once() {
    let mut lab = Lab::new(1, 1);
    let vips = (0..250).flat_map(|last| (2..8).map(move |third| [10, 0, third, last].into()));
    lab.vips = vips.map(|vip| (vip, vec![(1, 1); 5])).collect();
    lab.apply();
    assert_eq!(table(&lab, (1, 1)).matches("dnat to numgen").count(), 1500);
}

#[test]
fn a_udp_socket_leaves_a_back_end_of_former_times() {
    let breaks: [&[&str]; 3] =
        [&[], &["nft", "flush", "ruleset"], &["nft", "delete", "table", "ip", "skep"]];
    for command in breaks {
        let mut lab = balanced();
        let client = lab.container((1, 1));
        let socket = udp_client(&client);
        let first = ask_by(&socket, VIP, PORT).unwrap();
        if !command.is_empty() {
            run(&client, command);
        }
        lab.restart();
        lab.apply();
        let gone = |name: &(u8, u8)| first.starts_with(&format!("c{}-{}", name.0, name.1));
        lab.vips.get_mut(&VIP).unwrap().retain(|name| !gone(name));
        lab.apply();
        assert_ne!(ask_by(&socket, VIP, PORT).unwrap(), first, "{command:?}");
    }
}
