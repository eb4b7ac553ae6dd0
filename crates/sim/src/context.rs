//! What every part of the world may do: ask for the time, ask to be called later, send, tell.

use crate::ask::{Asked, Ordered};
use crate::consensus::{self, Consensus, Id};
use crate::history::History;
use crate::network::{Network, Packet};
use std::collections::BTreeMap;
use std::time::Duration;
use store::View;
use types::{Fault, TaskId, TaskState};

/// Something that is due at a time.
#[derive(Debug)]
pub enum Event {
    /// An item of the script.
    Step(usize),
    /// A fault of the script ends.
    Over(usize),
    /// Nothing breaks any more, and what is broken is mended.
    Calm,
    /// It is looked whether all is as it shall be.
    Look,
    Deliver(Packet),
    /// A cut has lasted for so long that keep-alives notice; of this many cuts of the link.
    Broken {
        node: usize,
        cut: u64,
    },
    /// Of the managers' log.
    Log(consensus::Due),
    /// A user asks.
    Asked(Asked),
    /// An order comes from another manager.
    Ordered {
        asked: Asked,
        order: Ordered,
    },
    /// A machine shows a token.
    Joins {
        node: usize,
    },
    /// A node has got its number in the log: it is a manager from now on; `None`: no more.
    Role {
        node: usize,
        manager: Option<Id>,
    },
    /// Of a manager; of this life of its process, and of its term.
    Manager(Id, u64, crate::manager::Due),
    /// Of this life of the node's daemon.
    Node(usize, u64, crate::node::Due),
    /// Of the machine, whatever the daemon does; of this life of the machine.
    Machine(usize, u64, crate::node::MachineDue),
}

/// What invariants look at.
#[derive(Debug)]
pub enum Happened {
    /// The store has changed.
    Stored { before: View },
    /// A process began.
    Began { node: usize, task: TaskId },
    /// A process ended.
    Ended { node: usize, task: TaskId },
    /// The worker has begun to stop a task, or has found that it has ended.
    Withdraws { node: usize, task: TaskId },
    /// A task that serves is told to stop, or its connections are waited for.
    Stops { node: usize, task: TaskId },
    /// A node said this of a task; of this life of its machine.
    Reported { node: usize, task: TaskId, state: TaskState },
    /// A node's disk was full, so that what it said may be forgotten.
    Forgetful { node: usize },
    /// The manager sent this version of a session, on top of another.
    Sent { connection: u64, from: Option<u64>, version: u64 },
    /// A node acknowledged a version of a session.
    Acknowledged { connection: u64, version: u64 },
    /// A plan breaks a rule.
    Refused(Fault),
    /// The manager on a machine is back: what its log says.
    Back { manager: usize, read: View },
}

/// What every part of the world has at hand.
#[derive(Debug)]
pub struct Context {
    pub now: Duration,
    /// Nothing breaks any more.
    pub calm: bool,
    pub network: Network,
    pub log: Consensus,
    pub history: History,
    pub happened: Vec<Happened>,
    queue: BTreeMap<(Duration, u64), Event>,
    events: u64,
    drawn: u64,
}

impl Context {
    pub fn new((network, log): (Network, Consensus), history: History) -> Self {
        Self {
            now: Duration::ZERO,
            calm: false,
            network,
            log,
            history,
            happened: Vec::new(),
            queue: BTreeMap::new(),
            events: 0,
            drawn: 0,
        }
    }

    /// Lets something happen later. What is due at the same time happens in the order in which it
    /// was asked for.
    pub fn after(&mut self, delay: Duration, event: Event) {
        self.at(self.now + delay, event);
    }

    pub fn at(&mut self, time: Duration, event: Event) {
        self.events += 1;
        self.queue.insert((time.max(self.now), self.events), event);
    }

    /// The next event; time goes on to it.
    pub fn advance(&mut self) -> Option<Event> {
        let ((time, _), event) = self.queue.pop_first()?;
        self.now = time;
        Some(event)
    }

    /// Has something done with the managers' log.
    pub fn log<T>(&mut self, act: impl FnOnce(&mut Consensus, &Network, Duration) -> T) -> T {
        let before = self.log.newest().clone();
        let done = act(&mut self.log, &self.network, self.now);
        for (delay, due) in self.log.due() {
            self.after(delay, Event::Log(due));
        }
        if self.log.newest().version() != before.version() {
            self.happened.push(Happened::Stored { before });
        }
        done
    }

    /// A number that nobody else has.
    pub fn draw(&mut self) -> u64 {
        self.drawn += 1;
        self.drawn
    }

    /// How many events there were.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// Sends a packet.
    pub fn send(&mut self, packet: Packet) {
        let due = self.network.send(self.now, self.calm, packet);
        self.deliver(due);
    }

    /// Lets packets arrive that the network says are on their way.
    pub fn deliver(&mut self, due: Vec<(Duration, Packet)>) {
        for (time, packet) in due {
            self.at(time, Event::Deliver(packet));
        }
    }

    /// A connection ends; both ends hear of it within `within`.
    pub fn sever(&mut self, connection: u64, within: Duration) {
        let due = self.network.sever(self.now, connection, within);
        self.deliver(due);
    }

    /// All these connections end.
    pub fn sever_all(&mut self, connections: Vec<u64>, within: Duration) {
        for connection in connections {
            self.sever(connection, within);
        }
    }

    pub fn tell(&mut self, line: impl FnOnce() -> String) {
        self.history.tell(self.now, line);
    }

    pub fn trace(&mut self, line: impl FnOnce() -> String) {
        self.history.trace(self.now, line);
    }
}
