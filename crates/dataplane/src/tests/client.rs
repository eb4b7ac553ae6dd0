//! A DNS client over real sockets.

use crate::upstream::framed;
use domain::base::iana::Rcode;
use domain::base::message_builder::AdditionalBuilder;
use domain::base::name::Name;
use domain::base::{Message, MessageBuilder, Rtype};
use domain::rdata::{A, Ptr};
use std::net::{Ipv4Addr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

pub(super) type Packet = Message<Vec<u8>>;

pub(super) fn query(name: &str, kind: Rtype) -> AdditionalBuilder<Vec<u8>> {
    let mut builder = MessageBuilder::new_vec();
    builder.header_mut().set_id(4711);
    builder.header_mut().set_rd(true);
    let mut builder = builder.question();
    builder.push((Name::<Vec<u8>>::from_str(name).unwrap(), kind)).unwrap();
    builder.additional()
}

pub(super) async fn exchange(port: u16, packet: &[u8]) -> Option<Packet> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    socket.connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
    socket.send(packet).await.ok()?;
    let mut reply = vec![0; 65_535];
    let len = timeout(Duration::from_secs(5), socket.recv(&mut reply)).await.ok()?.ok()?;
    reply.truncate(len);
    Some(Message::from_octets(reply).unwrap())
}

pub(super) async fn exchange_tcp(port: u16, packet: &[u8]) -> Option<Packet> {
    let server = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut stream = TcpStream::connect(server).await.ok()?;
    stream.write_all(&framed(packet).unwrap()).await.unwrap();
    let len = stream.read_u16().await.ok()?;
    let mut reply = vec![0; len.into()];
    stream.read_exact(&mut reply).await.unwrap();
    Some(Message::from_octets(reply).unwrap())
}

pub(super) async fn ask(port: u16, name: &str, kind: Rtype) -> Packet {
    exchange(port, &query(name, kind).finish()).await.expect("an answer")
}

/// The addresses of a name in order, none if it is not known.
pub(super) async fn lookup(port: u16, name: &str) -> Vec<Ipv4Addr> {
    let mut addresses = rotating(port, name).await;
    addresses.sort();
    addresses
}

/// The addresses of a name as they come.
pub(super) async fn rotating(port: u16, name: &str) -> Vec<Ipv4Addr> {
    addresses_of(&ask(port, name, Rtype::A).await)
}

pub(super) fn addresses_of(reply: &Packet) -> Vec<Ipv4Addr> {
    let records = reply.answer().unwrap().limit_to::<A>();
    records.map(|record| record.unwrap().data().addr()).collect()
}

pub(super) async fn reverse(port: u16, name: &str) -> Option<String> {
    let reply = ask(port, name, Rtype::PTR).await;
    let mut records = reply.answer().unwrap().limit_to::<Ptr<_>>();
    records.next().map(|record| record.unwrap().data().ptrdname().to_string())
}

pub(super) fn rcode(reply: &Packet) -> Rcode {
    reply.header().rcode()
}
