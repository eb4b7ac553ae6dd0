//! Questions that go upstream, to a name server of the test.

use super::client::{ask, exchange, exchange_tcp, lookup, query, rcode};
use super::{Host, Place, Wanted, addresses, knowledge, own_network};
use crate::upstream::framed;
use domain::base::iana::Rcode;
use domain::base::{Message, MessageBuilder, Rtype};
use domain::rdata::A;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Answers everything with 192.0.2.7 after a packet with a wrong id, or with a failure.
async fn upstream(tasks: &mut JoinSet<()>, rcode: Rcode) -> u16 {
    upstream_at(tasks, 0, rcode).await
}

async fn upstream_at(tasks: &mut JoinSet<()>, port: u16, rcode: Rcode) -> u16 {
    own_network();
    let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).await.unwrap();
    let port = udp.local_addr().unwrap().port();
    let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.unwrap();
    tasks.spawn(async move {
        let mut packet = vec![0; 4096];
        loop {
            let (len, from) = udp.recv_from(&mut packet).await.unwrap();
            let mut forged = reply(&packet[..len], Rcode::NOERROR, [192, 0, 2, 66].into());
            forged[0] ^= 0xff;
            udp.send_to(&forged, from).await.unwrap();
            let honest = reply(&packet[..len], rcode, [192, 0, 2, 7].into());
            udp.send_to(&honest, from).await.unwrap();
        }
    });
    tasks.spawn(async move {
        loop {
            let (mut stream, _) = tcp.accept().await.unwrap();
            let mut packet = vec![0; stream.read_u16().await.unwrap().into()];
            stream.read_exact(&mut packet).await.unwrap();
            let honest = reply(&packet, rcode, [192, 0, 2, 8].into());
            stream.write_all(&framed(&honest).unwrap()).await.unwrap();
        }
    });
    port
}

fn reply(packet: &[u8], rcode: Rcode, address: Ipv4Addr) -> Vec<u8> {
    let message = Message::from_octets(packet).unwrap();
    let mut builder = MessageBuilder::new_vec().start_answer(&message, rcode).unwrap();
    let name = message.sole_question().unwrap().into_qname();
    builder.push((name, 60, A::new(address))).unwrap();
    builder.finish()
}

#[tokio::test]
async fn unknown_names_of_several_labels_are_asked_upstream() {
    let mut tasks = JoinSet::new();
    let port = upstream(&mut tasks, Rcode::NOERROR).await;
    let host =
        Host::with_resolv_conf(Place::Apart, &format!("nameserver 127.0.0.1:{port}\n")).await;
    let sandbox = host.dataplane.attach("c1", Wanted::default()).await.unwrap();
    let reply = ask(sandbox.dns_port, "example.org", Rtype::A).await;
    assert_eq!(reply.header().id(), 4711);
    assert_eq!(lookup(sandbox.dns_port, "example.org").await, [Ipv4Addr::new(192, 0, 2, 7)]);
    let packet = query("example.org", Rtype::A).finish();
    let reply = exchange_tcp(sandbox.dns_port, &packet).await.unwrap();
    assert_eq!(super::client::addresses_of(&reply), [Ipv4Addr::new(192, 0, 2, 8)]);
    // A single label is ours alone.
    let reply = ask(sandbox.dns_port, "example", Rtype::A).await;
    assert_eq!(rcode(&reply), Rcode::NXDOMAIN);
}

#[tokio::test]
async fn a_containers_own_servers_are_asked_from_within_and_no_others() {
    let mut tasks = JoinSet::new();
    let wrong = upstream(&mut tasks, Rcode::REFUSED).await;
    upstream_at(&mut tasks, 53, Rcode::NOERROR).await;
    let resolv_conf = format!("nameserver 127.0.0.1:{wrong}\n");
    let mut host = Host::with_resolv_conf(Place::Apart, &resolv_conf).await;
    let nameservers = vec![Ipv4Addr::LOCALHOST.into()];
    let wanted = Wanted { nameservers, ..Wanted::default() };
    let sandbox = host.dataplane.attach("c1", wanted).await.unwrap();
    let inside = |host: &Host| host.namespaces.ports(Path::new(&sandbox.netns)).contains(&0);
    assert!(!inside(&host));
    let check = async || {
        let found = lookup(sandbox.dns_port, "example.org").await;
        assert_eq!(found, [Ipv4Addr::new(192, 0, 2, 7)]);
        let packet = query("example.org", Rtype::A).finish();
        let reply = exchange_tcp(sandbox.dns_port, &packet).await.unwrap();
        assert_eq!(super::client::addresses_of(&reply), [Ipv4Addr::new(192, 0, 2, 8)]);
    };
    check().await;
    assert!(inside(&host));
    // Another daemon knows of them, too.
    host.restart().await;
    check().await;
    // Who names none is answered by the node's.
    let other = host.attach_alone("c2").await;
    assert_eq!(rcode(&ask(other.dns_port, "example.org", Rtype::A).await), Rcode::REFUSED);
    assert!(!host.namespaces.ports(Path::new(&other.netns)).contains(&0));
}

#[tokio::test]
async fn nothing_is_asked_for_a_container_on_internal_networks_alone() {
    let mut tasks = JoinSet::new();
    let port = upstream(&mut tasks, Rcode::NOERROR).await;
    let host = Host::with_resolv_conf(Place::Here, &format!("nameserver 127.0.0.1:{port}\n")).await;
    host.identify().await;
    let mut known = knowledge(&[("t2", 111, true)]);
    known.networks.values_mut().for_each(|network| network.internal = true);
    host.learn(known, 1).await;
    let inside = host.attach("c1", None, 11).await.dns_port;
    assert_eq!(lookup(inside, "tasks.web").await, addresses(&[111]));
    let packet = query("secret.example.org", Rtype::A).finish();
    for reply in [exchange(inside, &packet).await, exchange_tcp(inside, &packet).await] {
        assert_eq!(rcode(&reply.unwrap()), Rcode::SERVFAIL);
    }
    // It is a question of networks, and changes with them.
    host.learn(knowledge(&[]), 2).await;
    assert_eq!(lookup(inside, "example.org").await, [Ipv4Addr::new(192, 0, 2, 7)]);
}

#[tokio::test]
async fn the_next_server_is_asked_when_one_fails() {
    let mut tasks = JoinSet::new();
    let failing = upstream(&mut tasks, Rcode::SERVFAIL).await;
    let good = upstream(&mut tasks, Rcode::NOERROR).await;
    let list = format!("nameserver 127.0.0.1:{failing}\nnameserver 127.0.0.1:{good}\n");
    let host = Host::with_resolv_conf(Place::Apart, &list).await;
    let sandbox = host.dataplane.attach("c1", Wanted::default()).await.unwrap();
    let reply = ask(sandbox.dns_port, "example.org", Rtype::A).await;
    assert_eq!(rcode(&reply), Rcode::NOERROR);
}

#[tokio::test]
async fn without_an_answer_from_upstream_the_question_fails() {
    // Nobody is there, so it fails at once rather than after the time-out.
    own_network();
    let closed = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = closed.local_addr().unwrap().port();
    drop(closed);
    let host =
        Host::with_resolv_conf(Place::Apart, &format!("nameserver 127.0.0.1:{port}\n")).await;
    let sandbox = host.dataplane.attach("c1", Wanted::default()).await.unwrap();
    let reply = ask(sandbox.dns_port, "example.org", Rtype::A).await;
    assert_eq!(rcode(&reply), Rcode::SERVFAIL);
}

#[tokio::test]
async fn a_container_that_asks_too_much_is_refused_and_others_are_not() {
    let mut tasks = JoinSet::new();
    // It answers only who asks for what is good.
    own_network();
    let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = udp.local_addr().unwrap().port();
    tasks.spawn(async move {
        let mut packet = vec![0; 4096];
        loop {
            let (len, from) = udp.recv_from(&mut packet).await.unwrap();
            if packet[..len].windows(4).any(|part| part == b"good") {
                let honest = reply(&packet[..len], Rcode::NOERROR, [192, 0, 2, 7].into());
                udp.send_to(&honest, from).await.unwrap();
            }
        }
    });
    let host =
        Host::with_resolv_conf(Place::Apart, &format!("nameserver 127.0.0.1:{port}\n")).await;
    let greedy = host.attach_alone("c1").await;
    let modest = host.attach_alone("c2").await;
    let asker = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    asker.connect((Ipv4Addr::LOCALHOST, greedy.dns_port)).await.unwrap();
    let packet = query("silence.example.org", Rtype::A).finish();
    for _ in 0..128 + 8 {
        asker.send(&packet).await.unwrap();
    }
    // Those beyond the limit are refused before upstream's time is up.
    for _ in 0..8 {
        let mut reply = vec![0; 4096];
        let received = timeout(Duration::from_secs(3), asker.recv(&mut reply)).await;
        reply.truncate(received.expect("refused at once").unwrap());
        assert_eq!(rcode(&Message::from_octets(reply).unwrap()), Rcode::SERVFAIL);
    }
    let reply = ask(modest.dns_port, "good.example.org", Rtype::A).await;
    assert_eq!(rcode(&reply), Rcode::NOERROR);
}
