//! A container's name server: UDP and TCP on 127.0.0.11 inside its namespace.
//!
//! Its own names are answered in the receiving loop, without a task for each; only forwarded
//! questions wait elsewhere. The sockets keep the namespace alive, so [`Server::close`] returns
//! only after all of them are closed.

use crate::message::{QUERY_MAX, Transport, Verdict, refuse, respond};
use crate::port;
use crate::upstream::{Upstreams, Way, framed};
use arc_swap::ArcSwap;
use discovery::{Upstream, Zone};
use domain::base::iana::OptRcode;
use scope::Scope;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Where containers look for their name server; port 53 is led here by the kernel's rules.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);
/// Packets that are answered before the loop looks at anything else.
const BATCH: usize = 64;
/// Questions of one container that wait for upstream, at most. More are answered SERVFAIL.
const FORWARDS: usize = 128;
/// As many of them wait whatever others ask. Those beyond take slots that are common to all.
const ASSURED: usize = 8;
/// TCP connections of one container. More wait in the listen queue.
const CONNECTIONS: usize = 32;
/// A connection on which nothing is asked for this long is closed.
const IDLE: Duration = Duration::from_secs(10);
/// A pause after the machine could not accept a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How often a port is drawn that is free for both UDP and TCP.
const DRAWS: usize = 16;
/// A server that has just ended may hold its port for a moment longer; rules lead to that port, so
/// it is worth a little patience.
const PORT_TRIES: usize = 25;
const PORT_PAUSE: Duration = Duration::from_millis(10);

/// Both sockets of a server, on one port.
pub(crate) struct Sockets {
    udp: std::net::UdpSocket,
    tcp: std::net::TcpListener,
    pub(crate) port: u16,
}

/// Opens a container's sockets, on the wanted port if that is free, else (or if it is 0) on
/// another.
pub(crate) async fn open(
    namespaces: &impl port::Sockets,
    netns: &Path,
    wanted: u16,
) -> io::Result<Sockets> {
    let mut attempt = open_at(namespaces, netns, wanted).await;
    for _ in 0..PORT_TRIES {
        if wanted == 0 || !is_taken(&attempt) {
            break;
        }
        tokio::time::sleep(PORT_PAUSE).await;
        attempt = open_at(namespaces, netns, wanted).await;
    }
    for _ in 0..DRAWS {
        if !is_taken(&attempt) {
            break;
        }
        attempt = open_at(namespaces, netns, 0).await;
    }
    attempt
}

fn is_taken(attempt: &io::Result<Sockets>) -> bool {
    attempt.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse)
}

async fn open_at(namespaces: &impl port::Sockets, netns: &Path, port: u16) -> io::Result<Sockets> {
    let udp = namespaces.bind_udp(netns, (ADDRESS, port).into()).await?;
    let port = udp.local_addr()?.port();
    let tcp = namespaces.bind_tcp(netns, (ADDRESS, port).into()).await?;
    udp.set_nonblocking(true)?;
    tcp.set_nonblocking(true)?;
    Ok(Sockets { udp, tcp, port })
}

/// A running server.
#[derive(Debug)]
pub(crate) struct Server {
    scope: Scope,
    zone: Arc<ArcSwap<Zone>>,
}

impl Server {
    /// Answers on these sockets. `ended` is told when it ends of itself.
    pub(crate) fn start<S: port::Sockets>(
        (sockets, netns): (Sockets, &Path),
        zone: Zone,
        upstreams: &Arc<Upstreams<S>>,
        ended: &Arc<Notify>,
        parent: &CancellationToken,
    ) -> io::Result<Self> {
        let mut scope = Scope::with_token(parent.child_token());
        let zone = Arc::new(ArcSwap::from_pointee(zone));
        let source = Arc::new(Source {
            netns: netns.to_owned(),
            zone: Arc::clone(&zone),
            upstreams: Arc::clone(upstreams),
            slots: Arc::new(Semaphore::new(FORWARDS)),
        });
        let udp = UdpSocket::from_std(sockets.udp)?;
        let tcp = TcpListener::from_std(sockets.tcp)?;
        let end = || End { token: scope.token(), ended: Arc::clone(ended) };
        let udp = end().follows(serve_udp(udp, Arc::clone(&source), scope.token()));
        let tcp = end().follows(serve_tcp(tcp, source, scope.token()));
        scope.spawn("dns over udp", udp);
        scope.spawn("dns over tcp", tcp);
        Ok(Self { scope, zone })
    }

    /// Answers from this zone from now on.
    pub(crate) fn publish(&self, zone: Zone) {
        self.zone.store(Arc::new(zone));
    }

    /// Says whether its loops have ended, or are about to.
    pub(crate) fn has_ended(&self) -> bool {
        self.scope.token().is_cancelled()
    }

    /// Ends the loops; then every socket is closed.
    pub(crate) async fn close(self) {
        self.scope.cancel();
        if let Err(error) = self.scope.join().await {
            tracing::warn!(%error, "name server ended with an error");
        }
    }
}

/// Tells of a loop's end that nobody asked for, also of one that panicked.
struct End {
    token: CancellationToken,
    ended: Arc<Notify>,
}

impl End {
    async fn follows<T>(self, run: impl Future<Output = T>) -> T {
        let _end = self;
        run.await
    }
}

impl Drop for End {
    fn drop(&mut self) {
        if !self.token.is_cancelled() {
            self.token.cancel();
            self.ended.notify_one();
        }
    }
}

/// Where answers come from.
struct Source<S> {
    netns: PathBuf,
    zone: Arc<ArcSwap<Zone>>,
    upstreams: Arc<Upstreams<S>>,
    /// This container's own.
    slots: Arc<Semaphore>,
}

/// Room for one question that waits for upstream: among the container's own, and among all where it
/// is not one of the first.
type Slot = (OwnedSemaphorePermit, Option<OwnedSemaphorePermit>);

impl<S: port::Sockets> Source<S> {
    /// Says whether a question can wait for upstream; if not, writes the answer.
    fn slot(&self, zone: &Zone, packet: &[u8], out: &mut Vec<u8>) -> Option<Slot> {
        let way = self.way(zone.upstream()).filter(|way| !self.upstreams.is_empty(*way));
        let Some(way) = way else {
            refuse(packet, OptRcode::NXDOMAIN, out);
            return None;
        };
        let slot = self.take(way);
        if slot.is_none() {
            refuse(packet, OptRcode::SERVFAIL, out);
        }
        slot
    }

    fn take(&self, way: Way<'_>) -> Option<Slot> {
        let held = FORWARDS - self.slots.available_permits();
        let own = Arc::clone(&self.slots).try_acquire_owned().ok()?;
        match held.checked_sub(ASSURED) {
            None => Some((own, None)),
            Some(held) => self.upstreams.slot(way, held).map(|common| (own, Some(common))),
        }
    }

    fn way<'a>(&'a self, upstream: &'a Upstream) -> Option<Way<'a>> {
        match upstream {
            Upstream::Node => Some(Way::Node),
            Upstream::Own(servers) => Some(Way::Own { netns: &self.netns, servers }),
            Upstream::Nobody => None,
        }
    }

    /// Asks upstream and keeps the slot until there is an answer.
    async fn forward(&self, packet: &[u8], transport: Transport, _slot: Slot) -> Vec<u8> {
        let zone = self.zone.load_full();
        if let Some(way) = self.way(zone.upstream())
            && let Some(reply) = self.upstreams.ask(way, packet, transport).await
        {
            return reply;
        }
        let mut out = Vec::new();
        refuse(packet, OptRcode::SERVFAIL, &mut out);
        out
    }
}

/// Questions on their way upstream. They come back to the loop, which alone has the socket.
type Forwards = JoinSet<(SocketAddr, Vec<u8>)>;

async fn serve_udp<S: port::Sockets>(
    socket: UdpSocket,
    source: Arc<Source<S>>,
    token: CancellationToken,
) -> io::Result<()> {
    let mut forwards = Forwards::new();
    let mut buffers = Buffers { packet: vec![0; QUERY_MAX], out: Vec::new(), turn: 0 };
    loop {
        tokio::select! {
            biased;
            () = token.cancelled() => return Ok(()),
            Some(done) = forwards.join_next() => {
                if let Ok((asker, reply)) = done {
                    send(&socket, &reply, asker);
                }
            }
            ready = socket.readable() => {
                ready?;
                answer_waiting(&socket, &source, &mut forwards, &mut buffers)?;
            }
        }
    }
}

struct Buffers {
    packet: Vec<u8>,
    out: Vec<u8>,
    turn: usize,
}

/// Answers what has arrived, all from the same zone.
fn answer_waiting<S: port::Sockets>(
    socket: &UdpSocket,
    source: &Arc<Source<S>>,
    forwards: &mut Forwards,
    buffers: &mut Buffers,
) -> io::Result<()> {
    let zone = source.zone.load();
    for _ in 0..BATCH {
        let (len, asker) = match socket.try_recv_from(&mut buffers.packet) {
            Ok(received) => received,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            // An ICMP error for an earlier answer.
            Err(error) if is_about_a_peer(&error) => continue,
            Err(error) => return Err(error),
        };
        let packet = &buffers.packet[..len];
        buffers.turn = buffers.turn.wrapping_add(1);
        match respond(packet, Transport::Udp, &zone, buffers.turn, &mut buffers.out) {
            Verdict::Reply => send(socket, &buffers.out, asker),
            Verdict::Drop => {}
            Verdict::Forward => match source.slot(&zone, packet, &mut buffers.out) {
                None => send(socket, &buffers.out, asker),
                Some(slot) => {
                    let (source, packet) = (Arc::clone(source), packet.to_vec());
                    forwards.spawn(async move {
                        (asker, source.forward(&packet, Transport::Udp, slot).await)
                    });
                }
            },
        }
    }
    Ok(())
}

/// Sends or forgets: who gets no answer asks again.
fn send(socket: &UdpSocket, reply: &[u8], asker: SocketAddr) {
    if let Err(error) = socket.try_send_to(reply, asker) {
        tracing::debug!(%asker, %error, "answer not sent");
    }
}

fn is_about_a_peer(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::Interrupted
    )
}

async fn serve_tcp<S: port::Sockets>(
    listener: TcpListener,
    source: Arc<Source<S>>,
    token: CancellationToken,
) -> io::Result<()> {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = token.cancelled() => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if connections.len() < CONNECTIONS => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(converse(stream, Arc::clone(&source)));
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a DNS connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    // An accepted connection keeps the namespace alive as well.
    connections.shutdown().await;
    Ok(())
}

/// Answers the questions of one connection, one after the other.
async fn converse<S: port::Sockets>(
    mut stream: TcpStream,
    source: Arc<Source<S>>,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut out = Vec::new();
    let mut turn = 0_usize;
    while let Some(packet) = timeout(IDLE, receive(&mut stream)).await?? {
        turn = turn.wrapping_add(1);
        let zone = source.zone.load_full();
        let verdict = respond(&packet, Transport::Tcp, &zone, turn, &mut out);
        match verdict {
            Verdict::Reply => {}
            Verdict::Drop => break,
            Verdict::Forward => {
                if let Some(slot) = source.slot(&zone, &packet, &mut out) {
                    out = source.forward(&packet, Transport::Tcp, slot).await;
                }
            }
        }
        timeout(IDLE, stream.write_all(&framed(&out)?)).await??;
    }
    Ok(())
}

/// Reads one message; none when the other end is done, or asks for too much.
async fn receive(stream: &mut TcpStream) -> io::Result<Option<Vec<u8>>> {
    let len = match stream.read_u16().await {
        Ok(len) => usize::from(len),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    };
    if len > QUERY_MAX {
        return Ok(None);
    }
    let mut packet = vec![0; len];
    stream.read_exact(&mut packet).await?;
    Ok(Some(packet))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::Namespaces;
    use discovery::{Here, Knowledge, OrdMap, OrdSet, Sandbox, zones};
    use std::net::IpAddr;

    /// Containers that share the way upstream, each with what it holds.
    struct Askers {
        upstreams: Arc<Upstreams<Namespaces>>,
        all: Vec<(Source<Namespaces>, Vec<Slot>)>,
    }

    impl Askers {
        async fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let resolv_conf = dir.path().join("resolv.conf");
            std::fs::write(&resolv_conf, "nameserver 192.0.2.1\n").unwrap();
            let upstreams = Upstreams::open(Namespaces::default(), &resolv_conf).await;
            Self { upstreams: Arc::new(upstreams), all: Vec::new() }
        }

        /// Adds one that asks these servers, or the node's if there are none; returns its number.
        fn add(&mut self, servers: &[IpAddr]) -> usize {
            let sandbox = Sandbox {
                task: None,
                netns: String::new(),
                gateway_addresses: ADDRESS.into(),
                attachments: Vec::new(),
                dns_port: 0,
                host_ports: Vec::new(),
                nameservers: servers.to_vec(),
            };
            let here = Here {
                node: "n1".into(),
                address: ADDRESS.into(),
                data_path_port: 4789,
                sandboxes: OrdMap::unit("c".to_owned(), sandbox),
                hidden: OrdSet::new(),
            };
            let zone = zones(&Knowledge::default(), &here).remove("c").unwrap();
            let source = Source {
                netns: PathBuf::new(),
                zone: Arc::new(ArcSwap::from_pointee(zone)),
                upstreams: Arc::clone(&self.upstreams),
                slots: Arc::new(Semaphore::new(FORWARDS)),
            };
            self.all.push((source, Vec::new()));
            self.all.len() - 1
        }

        /// Asks once and waits for ever, if there is room.
        fn ask(&mut self, asker: usize) -> bool {
            let (source, slots) = &mut self.all[asker];
            let slot = source.slot(&source.zone.load_full(), &[0; 12], &mut Vec::new());
            let is_admitted = slot.is_some();
            slots.extend(slot);
            is_admitted
        }

        /// Asks until there is no room, and says how much there was.
        fn ask_all(&mut self, asker: usize) -> usize {
            while self.ask(asker) {}
            self.all[asker].1.len()
        }
    }

    #[tokio::test]
    async fn however_many_ask_without_end_there_is_room_for_one_more() {
        let mut askers = Askers::new().await;
        for _ in 0..200 {
            let asker = askers.add(&[]);
            assert!((ASSURED..=FORWARDS).contains(&askers.ask_all(asker)));
        }
    }

    #[tokio::test]
    async fn containers_that_ask_side_by_side_have_the_same() {
        let mut askers = Askers::new().await;
        for _ in 0..15 {
            askers.add(&[]);
        }
        for round in 0..FORWARDS {
            for asker in 0..15 {
                assert_eq!(askers.ask(asker), round < ASSURED + 1024 / 16);
            }
        }
        // What is given back is for those who have less.
        let newcomer = askers.add(&[]);
        assert_eq!(askers.ask_all(newcomer), ASSURED + 1024 / 16 / 2);
        askers.all[0].1.truncate(FORWARDS / 2 - ASSURED);
        assert!(!askers.ask(1));
        assert!(askers.ask(newcomer));
    }

    #[tokio::test]
    async fn a_container_with_servers_of_its_own_takes_nothing_from_the_others() {
        let mut askers = Askers::new().await;
        for _ in 0..100 {
            let asker = askers.add(&[Ipv4Addr::new(192, 0, 2, 9).into()]);
            assert!(askers.ask_all(asker) > 0);
        }
        let asker = askers.add(&[]);
        assert_eq!(askers.ask_all(asker), FORWARDS);
    }
}
