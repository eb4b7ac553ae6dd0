//! The network between nodes and managers, and among managers.
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
use types::{Fault, NodeRole};
use wire::{Acknowledge, Heartbeat, HeartbeatReply, Report, SessionMessage, SessionRequest};

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
    /// The manager's machine.
    pub manager: usize,
    pub connection: u64,
    pub way: Way,
    pub body: Body,
}

impl Packet {
    /// From which machine to which.
    fn ends(&self) -> (usize, usize) {
        match self.way {
            Way::Up => (self.node, self.manager),
            Way::Down => (self.manager, self.node),
        }
    }
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
    /// It is to be a manager, and asks for its number in the log.
    Enroll,
    /// It is a manager of this number, and asks whether that is still so.
    Number(u64),
    Leave {
        tasks_first: bool,
    },
}

#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    Done,
    /// The stream is open: the first that comes out of it.
    Opened,
    Heartbeat(HeartbeatReply),
    /// The certificate says so.
    Renewed(NodeRole),
    Enrolled(u64),
    /// This manager does not lead; managers are there.
    Elsewhere(Vec<String>),
}

#[derive(Debug, Default)]
struct Connection {
    node: usize,
    manager: usize,
    /// When the newest message of the stream arrives.
    last: Duration,
    /// Messages of the stream that the node has not read.
    unread: usize,
}

/// The wire between one machine and all others.
#[derive(Debug)]
struct Link {
    random: Random,
    /// Cuts that last, by way: from the machine, and to it.
    up: u32,
    down: u32,
    /// Cuts of what managers say to each other, though nodes are not hindered.
    apart: u32,
    cuts: u64,
}

#[derive(Debug)]
pub struct Network {
    noise: Noise,
    random: Random,
    links: BTreeMap<usize, Link>,
    connections: BTreeMap<u64, Connection>,
    /// What a cut holds up.
    held: VecDeque<Packet>,
    /// Calls that their senders gave up while the connection held.
    reset: BTreeSet<u64>,
}

impl Network {
    pub fn new(noise: Noise, random: Random) -> Self {
        let (links, connections, held, reset) = Default::default();
        Self { noise, random, links, connections, held, reset }
    }

    fn link(&mut self, node: usize) -> &mut Link {
        let random = self.random.fork(node as u64);
        self.links.entry(node).or_insert_with(|| Link { random, up: 0, down: 0, apart: 0, cuts: 0 })
    }

    /// Says whether packets pass from one machine to another.
    pub fn carries(&self, from: usize, to: usize) -> bool {
        let up = self.links.get(&from).is_none_or(|link| link.up == 0);
        let down = self.links.get(&to).is_none_or(|link| link.down == 0);
        from == to || (up && down)
    }

    /// The same, for what managers say to each other.
    pub fn carries_log(&self, from: usize, to: usize) -> bool {
        let is_apart = |machine| self.links.get(&machine).is_some_and(|link| link.apart > 0);
        from == to || (self.carries(from, to) && !is_apart(from) && !is_apart(to))
    }

    /// Says whether two managers hear each other.
    pub fn are_joined(&self, one: usize, other: usize) -> bool {
        self.carries_log(one, other) && self.carries_log(other, one)
    }

    /// Says whether a packet has to wait. A connection does not come about by one way alone.
    fn holds_up(&self, packet: &Packet) -> bool {
        let begins = match &packet.body {
            Body::Call {
                call: Call::Session(_) | Call::Leave { .. } | Call::Enroll | Call::Number(_),
                ..
            } => true,
            Body::Call { .. }
            | Body::Again { .. }
            | Body::Answer { .. }
            | Body::Stream(_)
            | Body::End
            | Body::Closed => false,
        };
        let (from, to) = packet.ends();
        !self.carries(from, to) || (begins && !self.carries(to, from))
    }

    /// A node begins a connection.
    pub fn connect(&mut self, connection: u64, (node, manager): (usize, usize)) {
        self.connections.insert(connection, Connection { node, manager, ..Connection::default() });
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
    pub fn passes(&self, one: usize, other: usize) -> bool {
        self.carries(one, other) && self.carries(other, one)
    }

    /// Takes a packet; says when it arrives, if it is under way.
    pub fn send(&mut self, now: Duration, calm: bool, packet: Packet) -> Vec<(Duration, Packet)> {
        let noise = if calm { Noise::default() } else { self.noise };
        if !self.connections.contains_key(&packet.connection) {
            return Vec::new();
        }
        let is_stream = matches!(packet.body, Body::Stream(_));
        let is_cut = self.holds_up(&packet);
        if is_cut {
            self.held.push_back(packet.clone());
        }
        let is_local = packet.node == packet.manager;
        let link = self.link(packet.node);
        let lost = link.random.chance(noise.lost);
        let mut delay = if is_local {
            link.random.between(Duration::from_micros(10), Duration::from_micros(300))
        } else {
            link.random.between(Duration::from_micros(100), Duration::from_millis(4))
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
        if lost && !is_local {
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
        let Some(Connection { node, manager, .. }) = self.connections.remove(&connection) else {
            return Vec::new();
        };
        self.held.retain(|packet| packet.connection != connection);
        let link = self.link(node);
        let closed = |way| Packet { node, manager, connection, way, body: Body::Closed };
        [Way::Up, Way::Down]
            .map(|way| (now + link.random.between(Duration::from_micros(100), within), closed(way)))
            .into()
    }

    /// All connections of a node.
    pub fn of_node(&self, node: usize) -> Vec<u64> {
        self.those(|connection| connection.node == node)
    }

    /// All connections of the manager on a machine.
    pub fn of_manager(&self, machine: usize) -> Vec<u64> {
        self.those(|connection| connection.manager == machine)
    }

    /// All connections from and to a machine.
    pub fn of_machine(&self, machine: usize) -> Vec<u64> {
        self.those(|it| it.node != it.manager && (it.node == machine || it.manager == machine))
    }

    fn those(&self, which: impl Fn(&Connection) -> bool) -> Vec<u64> {
        self.connections.iter().filter(|(_, it)| which(it)).map(|(id, _)| *id).collect()
    }

    /// Nothing passes any more on these ways; says the number of the cut.
    pub fn cut(&mut self, machine: usize, (up, down): (bool, bool)) -> u64 {
        let link = self.link(machine);
        link.up += u32::from(up);
        link.down += u32::from(down);
        link.cuts += 1;
        link.cuts
    }

    /// A manager and the others do not hear each other any more, or do again.
    pub fn part(&mut self, machine: usize, begins: bool) {
        let link = self.link(machine);
        link.apart = if begins { link.apart + 1 } else { link.apart.saturating_sub(1) };
    }

    /// A cut is over; says what arrives of what has waited.
    pub fn mend(
        &mut self,
        now: Duration,
        machine: usize,
        ways: (bool, bool),
    ) -> Vec<(Duration, Packet)> {
        let link = self.link(machine);
        link.up -= u32::from(ways.0);
        link.down -= u32::from(ways.1);
        let mut due = Vec::new();
        // In order, as what waits of a connection is sent again in order.
        let mut time = now;
        for packet in std::mem::take(&mut self.held) {
            if self.holds_up(&packet) {
                self.held.push_back(packet);
                continue;
            }
            let link = self.link(machine);
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

    /// All cuts of a machine are over.
    pub fn heal(&mut self, now: Duration, machine: usize) -> Vec<(Duration, Packet)> {
        let link = self.link(machine);
        (link.up, link.down, link.apart) = (0, 0, 0);
        self.mend(now, machine, (false, false))
    }

    /// Says whether this cut of a link is the newest one and lasts.
    pub fn is_cut(&self, node: usize, cut: u64) -> bool {
        self.links.get(&node).is_some_and(|link| link.cuts == cut && link.up + link.down > 0)
    }
}
