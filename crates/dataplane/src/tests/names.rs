//! Answers as they are on the wire.

use super::client::{
    addresses_of, ask, exchange, exchange_tcp, lookup, query, rcode, reverse, rotating,
};
use super::{Host, Place, addresses, knowledge, until};
use domain::base::Rtype;
use domain::base::iana::{Class, Opcode, OptRcode, Rcode};
use domain::base::name::Name;
use domain::base::{Message, MessageBuilder};
use std::collections::BTreeSet;
use std::str::FromStr;

/// A container that sees `tasks` tasks of the service `web`.
async fn container(tasks: u8) -> (Host, u16) {
    let host = Host::new(Place::Here).await;
    host.identify().await;
    let names: Vec<String> = (0..tasks).map(|task| format!("t{task}")).collect();
    let tasks: Vec<(&str, u8, bool)> =
        names.iter().zip(100..).map(|(name, part)| (name.as_str(), part, true)).collect();
    host.learn(knowledge(&tasks), 1).await;
    let port = host.attach("c1", None, 11).await.dns_port;
    (host, port)
}

#[tokio::test]
async fn answers_say_what_a_resolver_needs() {
    let (_host, port) = container(1).await;
    let reply = ask(port, "web", Rtype::A).await;
    assert_eq!((rcode(&reply), reply.header().id()), (Rcode::NOERROR, 4711));
    assert!(reply.header().ra() && reply.header().rd() && reply.header().aa());
    let record = reply.answer().unwrap().next().unwrap().unwrap();
    assert_eq!(record.ttl().as_secs(), 1);
    let none = ask(port, "web", Rtype::AAAA).await;
    assert_eq!((rcode(&none), none.header_counts().ancount()), (Rcode::NOERROR, 0));
    assert_eq!(rcode(&ask(port, "wbe", Rtype::A).await), Rcode::NXDOMAIN);
    assert_eq!(rcode(&ask(port, "web", Rtype::AXFR).await), Rcode::REFUSED);
    // No name server is configured.
    assert_eq!(rcode(&ask(port, "example.org", Rtype::A).await), Rcode::NXDOMAIN);
}

#[tokio::test]
async fn addresses_are_called_by_container_and_network() {
    let (_host, port) = container(1).await;
    let name = reverse(port, "100.1.0.10.in-addr.arpa").await;
    assert_eq!(name.as_deref(), Some("web.100.t0.front"));
    assert_eq!(reverse(port, "2.1.0.10.in-addr.arpa").await.as_deref(), Some("web.front"));
    assert_eq!(reverse(port, "9.1.0.10.in-addr.arpa").await, None);
}

#[tokio::test]
async fn answers_rotate() {
    let (_host, port) = container(3).await;
    let mut first = BTreeSet::new();
    for _ in 0..3 {
        first.insert(rotating(port, "tasks.web").await[0]);
    }
    assert_eq!(first.into_iter().collect::<Vec<_>>(), addresses(&[100, 101, 102]));
}

#[tokio::test]
async fn an_answer_that_does_not_fit_is_cut_and_whole_by_tcp_or_edns() {
    let (_host, port) = container(60).await;
    let plain = query("tasks.web", Rtype::A).finish();
    let cut = exchange(port, &plain).await.unwrap();
    assert!(cut.header().tc());
    assert!(cut.as_slice().len() <= 512);
    assert!(!addresses_of(&cut).is_empty());

    let whole = exchange_tcp(port, &plain).await.unwrap();
    assert!(!whole.header().tc());
    assert_eq!(addresses_of(&whole).len(), 60);

    let mut edns = query("tasks.web", Rtype::A);
    edns.opt(|opt| {
        opt.set_udp_payload_size(1232);
        Ok(())
    })
    .unwrap();
    let reply = exchange(port, &edns.finish()).await.unwrap();
    assert!(!reply.header().tc());
    assert_eq!(addresses_of(&reply).len(), 60);
    assert!(reply.opt().is_some());
}

#[tokio::test]
async fn an_edns_answer_that_does_not_fit_keeps_its_limit() {
    let (_host, port) = container(100).await;
    let mut edns = query("tasks.web", Rtype::A);
    edns.opt(|opt| {
        opt.set_udp_payload_size(600);
        Ok(())
    })
    .unwrap();
    let reply = exchange(port, &edns.finish()).await.unwrap();
    assert!(reply.header().tc() && reply.opt().is_some());
    assert!(reply.as_slice().len() <= 600, "{}", reply.as_slice().len());
}

#[tokio::test]
async fn what_is_no_proper_query_gets_the_proper_error() {
    let (_host, port) = container(1).await;
    let good = query("web", Rtype::A).finish();

    let mut status = Message::from_octets(good.clone()).unwrap();
    status.header_mut().set_opcode(Opcode::STATUS);
    let reply = exchange(port, status.as_slice()).await.unwrap();
    assert_eq!(rcode(&reply), Rcode::NOTIMP);

    let name = Name::<Vec<u8>>::from_str("web").unwrap();
    let mut chaos = MessageBuilder::new_vec().question();
    chaos.push((&name, Rtype::A, Class::CH)).unwrap();
    assert_eq!(rcode(&exchange(port, &chaos.finish()).await.unwrap()), Rcode::REFUSED);

    let mut two = MessageBuilder::new_vec().question();
    two.push((&name, Rtype::A)).unwrap();
    two.push((&name, Rtype::AAAA)).unwrap();
    assert_eq!(rcode(&exchange(port, &two.finish()).await.unwrap()), Rcode::FORMERR);

    let short = &good[..good.len() - 3];
    assert_eq!(rcode(&exchange(port, short).await.unwrap()), Rcode::FORMERR);

    let mut edns = query("web", Rtype::A);
    edns.opt(|opt| {
        opt.set_version(1);
        Ok(())
    })
    .unwrap();
    let reply = exchange(port, &edns.finish()).await.unwrap();
    assert_eq!(reply.opt_rcode(), OptRcode::BADVERS);

    // A bare header, or an answer: silence. The next query finds the server alive.
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut answer = Message::from_octets(good).unwrap();
    answer.header_mut().set_qr(true);
    socket.send_to(answer.as_slice(), ("127.0.0.1", port)).unwrap();
    socket.send_to(&[1, 2, 3], ("127.0.0.1", port)).unwrap();
    assert_eq!(lookup(port, "tasks.web").await, addresses(&[100]));
    socket.set_nonblocking(true).unwrap();
    assert!(socket.recv(&mut [0; 512]).is_err());
}

#[tokio::test]
async fn one_tcp_connection_carries_many_questions() {
    use crate::upstream::framed;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let (_host, port) = container(1).await;
    let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let packet = framed(&query("web", Rtype::A).finish()).unwrap();
    stream.write_all(&[packet.clone(), packet].concat()).await.unwrap();
    for _ in 0..2 {
        let mut reply = vec![0; stream.read_u16().await.unwrap().into()];
        stream.read_exact(&mut reply).await.unwrap();
        let reply = Message::from_octets(reply).unwrap();
        assert_eq!(addresses_of(&reply), addresses(&[2]));
    }
}

#[tokio::test]
async fn a_server_whose_socket_fails_is_opened_anew_at_once() {
    let host = Host::new(Place::Here).await;
    host.namespaces.fail_socket();
    let port = host.attach_alone("c1").await.dns_port;
    let packet = query("nobody", Rtype::A).finish();
    assert!(exchange(port, &packet).await.is_none(), "the socket is one that fails");
    drop(tokio::net::TcpStream::connect(("127.0.0.2", port)).await.unwrap());
    until(true, async || exchange(port, &packet).await.is_some()).await;
}
