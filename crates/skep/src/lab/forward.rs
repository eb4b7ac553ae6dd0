//! An address of the machine's loopback (`localhost` for the usual lab) leads to node-1's
//! published ports.
//!
//! A process in the machine's own namespace listens on that address for each port that the cluster
//! publishes, and connects to node-1. Nothing is added to the host's firewall.

use super::layout::Layout;
use crate::client::Client;
use anyhow::Result;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinSet;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

/// How often node-1 is asked for its ports.
const PERIOD: Duration = Duration::from_millis(500);
/// A UDP client that is silent for so long is forgotten.
const UDP_IDLE: Duration = Duration::from_mins(1);
/// UDP clients of one port at once.
const UDP_CLIENTS_MAX: usize = 1024;

/// A port that a service publishes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Port {
    protocol: String,
    number: u16,
}

/// From which of the machine's addresses to which node.
#[derive(Clone, Copy)]
struct Route {
    here: Ipv4Addr,
    there: Ipv4Addr,
}

/// Follows node-1's published ports for as long as the lab is up.
pub(super) async fn run(layout: &Layout) -> Result<()> {
    let node = layout.node(1);
    let client = Client::unix(&node.socket());
    let route = Route { here: layout.localhost(), there: node.address };
    let mut open: BTreeMap<Port, DropGuard> = BTreeMap::new();
    let mut period = tokio::time::interval(PERIOD);
    loop {
        period.tick().await;
        // A daemon that is away keeps its ports: its containers serve on.
        let Ok(services) = client.get::<Vec<Value>>("/services").await else { continue };
        let wanted = published(&services);
        open.retain(|port, _| wanted.contains(port));
        for port in wanted {
            if !open.contains_key(&port)
                && let Some(guard) = listen(&port, route).await
            {
                open.insert(port, guard);
            }
        }
    }
}

/// The ports that services publish.
fn published(services: &[Value]) -> BTreeSet<Port> {
    let ports = services.iter().filter_map(|service| service["Endpoint"]["Ports"].as_array());
    ports
        .flatten()
        .filter_map(|port| {
            let number = u16::try_from(port["PublishedPort"].as_u64()?).ok()?;
            Some(Port { protocol: port["Protocol"].as_str()?.to_owned(), number })
        })
        .collect()
}

/// Opens one port; `None` while somebody else has it.
async fn listen(port: &Port, route: Route) -> Option<DropGuard> {
    let here = SocketAddr::from((route.here, port.number));
    let there = SocketAddr::from((route.there, port.number));
    let token = CancellationToken::new();
    let tracker = TaskTracker::new();
    match port.protocol.as_str() {
        "tcp" => {
            let listener = TcpListener::bind(here).await.ok()?;
            tracker.spawn(token.clone().run_until_cancelled_owned(tcp(listener, there)));
        }
        "udp" => {
            let socket = UdpSocket::bind(here).await.ok()?;
            tracker.spawn(token.clone().run_until_cancelled_owned(udp(Arc::new(socket), there)));
        }
        _ => return None,
    }
    Some(token.drop_guard())
}

async fn tcp(listener: TcpListener, there: SocketAddr) {
    let connections = TaskTracker::new();
    loop {
        let Ok((mut client, _)) = listener.accept().await else {
            // E.g. too many open files: the next attempt would fail as fast.
            tokio::time::sleep(PERIOD).await;
            continue;
        };
        connections.spawn(async move {
            if let Ok(mut server) = TcpStream::connect(there).await {
                let _either_end_closed =
                    tokio::io::copy_bidirectional(&mut client, &mut server).await;
            }
        });
    }
}

/// One socket a client, so that answers find their way back.
async fn udp(socket: Arc<UdpSocket>, there: SocketAddr) {
    let mut clients: BTreeMap<SocketAddr, Arc<UdpSocket>> = BTreeMap::new();
    let mut answers = JoinSet::new();
    let mut packet = vec![0; 65536];
    loop {
        let (length, client) = tokio::select! {
            Some(Ok(silent)) = answers.join_next() => {
                clients.remove(&silent);
                continue;
            }
            received = socket.recv_from(&mut packet) => match received {
                Ok(received) => received,
                Err(_) => continue,
            },
        };
        if !clients.contains_key(&client) {
            let Some(server) = exit(there).await.filter(|_| clients.len() < UDP_CLIENTS_MAX) else {
                continue;
            };
            answers.spawn(answer(Arc::clone(&server), Arc::clone(&socket), client));
            clients.insert(client, server);
        }
        if let Some(server) = clients.get(&client) {
            let _lost_like_any_datagram = server.send(&packet[..length]).await;
        }
    }
}

/// A socket that leads to the node.
async fn exit(there: SocketAddr) -> Option<Arc<UdpSocket>> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await.ok()?;
    socket.connect(there).await.ok()?;
    Some(Arc::new(socket))
}

/// Carries answers back until the client has been silent for long.
async fn answer(server: Arc<UdpSocket>, socket: Arc<UdpSocket>, client: SocketAddr) -> SocketAddr {
    let mut packet = vec![0; 65536];
    while let Ok(Ok(length)) = tokio::time::timeout(UDP_IDLE, server.recv(&mut packet)).await {
        let _lost_like_any_datagram = socket.send_to(&packet[..length], client).await;
    }
    client
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_ports_are_read_from_services() {
        let services = serde_json::json!([
            {"Endpoint": {"Ports": [{"Protocol": "tcp", "PublishedPort": 8080, "TargetPort": 80}]}},
            {"Endpoint": {"Spec": {}}},
        ]);
        let ports = published(services.as_array().unwrap());
        assert_eq!(ports, BTreeSet::from([Port { protocol: "tcp".to_owned(), number: 8080 }]));
    }
}
