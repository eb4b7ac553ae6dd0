//! The network between nodes and the manager.
//!
//! It carries connections, as TCP does: a stream's messages come in order, once, and what cannot be
//! delivered waits, until the connection is found broken by keep-alives. Calls overtake each other
//! and the stream, may be executed although nobody hears the answer, and may come twice, or long
//! after their sender has given them up and has opened another session. (The network between containers is not here: what leads where
//! is looked at in the nodes' kernels.)

use crate::random::Random;
use crate::script::Noise;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;
use types::Fault;
use wire::{Acknowledge, Heartbeat, Report, SessionMessage, SessionRequest};

/// After which both ends know that a connection is broken whose packets do not arrive.
pub const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// In milliseconds: longer than anybody waits for an answer.
const LATE_MAX: u64 = 20_000;
/// Messages of a stream that are not read at most; a sender that has more is cut off.
const WINDOW: usize = 64;

/// Which way a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// To the manager.
    Up,
    /// To the node.
    Down,
}

#[derive(Clone, Debug)]
pub struct Packet {
    pub node: usize,
    pub connection: u64,
    pub way: Way,
    pub body: Body,
}

#[derive(Clone, Debug)]
pub enum Body {
    /// From a node.
    Call { id: u64, call: Call },
    /// The same call once more: it counts where its connection has gone, so that nobody waits for it.
    Again { id: u64, call: Call },
    /// To a node.
    Answer { id: u64, answer: Result<Answer, Fault> },
    /// To a node.
    Stream(Box<SessionMessage>),
    /// To a node: the stream has ended, in order.
    End,
    /// The other end is gone.
    Closed,
}

#[derive(Clone, Debug)]
pub enum Call {
    Session(Box<SessionRequest>),
    Heartbeat(Heartbeat),
    Acknowledge(Acknowledge),
    Report(Report),
    Renew,
    Leave { tasks_first: bool },
}

#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    Done,
    /// The stream is open: the first that comes out of it.
    Opened,
    Heartbeat(Duration),
}

#[derive(Debug, Default)]
struct Connection {
    node: usize,
    /// When the newest message of the stream arrives.
    last: Duration,
    /// Messages of the stream that the node has not read.
    unread: usize,
}

/// The way between one node and the manager.
#[derive(Debug)]
struct Link {
    random: Random,
    /// Cuts that last, by way.
    up: u32,
    down: u32,
    cuts: u64,
    held: VecDeque<Packet>,
}

impl Link {
    /// Says whether a packet has to wait. A connection does not come about by one way alone.
    fn holds_up(&self, packet: &Packet) -> bool {
        let begins = match &packet.body {
            Body::Call { call: Call::Session(_) | Call::Leave { .. }, .. } => true,
            Body::Call { .. }
            | Body::Again { .. }
            | Body::Answer { .. }
            | Body::Stream(_)
            | Body::End
            | Body::Closed => false,
        };
        match packet.way {
            Way::Up => self.up > 0 || (begins && self.down > 0),
            Way::Down => self.down > 0,
        }
    }
}

#[derive(Debug)]
pub struct Network {
    noise: Noise,
    random: Random,
    links: BTreeMap<usize, Link>,
    connections: BTreeMap<u64, Connection>,
    /// Calls that their senders gave up while the connection held.
    reset: BTreeSet<u64>,
}

impl Network {
    pub fn new(noise: Noise, random: Random) -> Self {
        let (links, connections, reset) = Default::default();
        Self { noise, random, links, connections, reset }
    }

    fn link(&mut self, node: usize) -> &mut Link {
        let random = self.random.fork(node as u64);
        self.links.entry(node).or_insert_with(|| Link {
            random,
            up: 0,
            down: 0,
            cuts: 0,
            held: VecDeque::new(),
        })
    }

    /// A node begins a connection.
    pub fn connect(&mut self, connection: u64, node: usize) {
        self.connections.insert(connection, Connection { node, ..Connection::default() });
    }

    /// Says whether a connection holds.
    pub fn holds(&self, connection: u64) -> bool {
        self.connections.contains_key(&connection)
    }

    /// The sender of a call waits no more: where it has not arrived yet it does not.
    pub fn reset(&mut self, call: u64) {
        self.reset.insert(call);
    }

    pub fn was_reset(&self, call: u64) -> bool {
        self.reset.contains(&call)
    }

    /// Says whether a stream can take one more message.
    pub fn has_room(&self, connection: u64) -> bool {
        self.connections.get(&connection).is_some_and(|it| it.unread < WINDOW)
    }

    /// Says whether packets pass both ways.
    pub fn passes(&self, node: usize) -> bool {
        self.links.get(&node).is_none_or(|link| link.up == 0 && link.down == 0)
    }

    /// Takes a packet; says when it arrives, if it is under way.
    pub fn send(&mut self, now: Duration, calm: bool, packet: Packet) -> Vec<(Duration, Packet)> {
        let noise = if calm { Noise::default() } else { self.noise };
        if !self.connections.contains_key(&packet.connection) {
            return Vec::new();
        }
        let is_stream = matches!(packet.body, Body::Stream(_));
        let link = self.link(packet.node);
        let is_cut = link.holds_up(&packet);
        let lost = link.random.chance(noise.lost);
        if is_cut {
            link.held.push_back(packet.clone());
        }
        let mut delay = match packet.node {
            0 => link.random.between(Duration::from_micros(10), Duration::from_micros(300)),
            _ => link.random.between(Duration::from_micros(100), Duration::from_millis(4)),
        };
        if link.random.chance(noise.late) {
            delay += link.random.millis(100, LATE_MAX);
        }
        let again = link.random.chance(noise.doubled).then(|| link.random.millis(1, 15_000));
        let Some(connection) = self.connections.get_mut(&packet.connection) else {
            return Vec::new();
        };
        if is_stream {
            connection.unread += 1;
        }
        if is_cut {
            return Vec::new();
        }
        // Node 0 is on the manager's machine.
        if lost && packet.node != 0 {
            return self.sever(now, packet.connection, Duration::from_secs(2));
        }
        let mut time = now + delay;
        match &packet.body {
            Body::Stream(_)
            | Body::End
            | Body::Closed
            | Body::Answer { answer: Ok(Answer::Opened), .. } => {
                time = time.max(connection.last + Duration::from_nanos(1));
                connection.last = time;
            }
            Body::Call { .. } | Body::Again { .. } | Body::Answer { .. } => {}
        }
        let mut due = vec![(time, packet.clone())];
        if let (Some(again), Body::Call { id, call }) = (again, packet.body)
            // One that begins a session is a connection's first: it may be late, but is no other's.
            && !matches!(call, Call::Session(_))
        {
            due.push((time + again, Packet { body: Body::Again { id, call }, ..packet }));
        }
        due
    }

    /// A node has read a message of a stream.
    pub fn was_read(&mut self, connection: u64) {
        if let Some(connection) = self.connections.get_mut(&connection) {
            connection.unread = connection.unread.saturating_sub(1);
        }
    }

    /// A connection ends; both ends hear of it within `within`.
    pub fn sever(
        &mut self,
        now: Duration,
        connection: u64,
        within: Duration,
    ) -> Vec<(Duration, Packet)> {
        let Some(Connection { node, .. }) = self.connections.remove(&connection) else {
            return Vec::new();
        };
        let link = self.link(node);
        link.held.retain(|packet| packet.connection != connection);
        let closed = |way| Packet { node, connection, way, body: Body::Closed };
        [Way::Up, Way::Down]
            .map(|way| (now + link.random.between(Duration::from_micros(100), within), closed(way)))
            .into()
    }

    /// All connections of a node.
    pub fn of_node(&self, node: usize) -> Vec<u64> {
        let of = self.connections.iter().filter(|(_, connection)| connection.node == node);
        of.map(|(id, _)| *id).collect()
    }

    pub fn all(&self) -> Vec<u64> {
        self.connections.keys().copied().collect()
    }

    /// Nothing passes any more on these ways; says the number of the cut.
    pub fn cut(&mut self, node: usize, (up, down): (bool, bool)) -> u64 {
        let link = self.link(node);
        link.up += u32::from(up);
        link.down += u32::from(down);
        link.cuts += 1;
        link.cuts
    }

    /// A cut is over; says what arrives of what has waited.
    pub fn mend(
        &mut self,
        now: Duration,
        node: usize,
        ways: (bool, bool),
    ) -> Vec<(Duration, Packet)> {
        let link = self.link(node);
        link.up -= u32::from(ways.0);
        link.down -= u32::from(ways.1);
        let mut due = Vec::new();
        let held = std::mem::take(&mut link.held);
        // In order, as what waits of a connection is sent again in order.
        let mut time = now;
        for packet in held {
            if link.holds_up(&packet) {
                link.held.push_back(packet);
                continue;
            }
            time += link.random.between(Duration::from_micros(10), Duration::from_millis(2));
            due.push((time, packet));
        }
        for (time, packet) in &due {
            if let Some(connection) = self.connections.get_mut(&packet.connection) {
                connection.last = connection.last.max(*time);
            }
        }
        due
    }

    /// All cuts of a node are over.
    pub fn heal(&mut self, now: Duration, node: usize) -> Vec<(Duration, Packet)> {
        let link = self.link(node);
        (link.up, link.down) = (0, 0);
        self.mend(now, node, (false, false))
    }

    /// Says whether this cut of a link is the newest one and lasts.
    pub fn is_cut(&self, node: usize, cut: u64) -> bool {
        self.links.get(&node).is_some_and(|link| link.cuts == cut && link.up + link.down > 0)
    }
}
