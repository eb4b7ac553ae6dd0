//! What the dispatcher is told, and what it wants done.

use super::observation::Observation;
use crate::clock::Uptime;
use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;
use store::View;
use types::{Fault, NodeId, TaskId, Timestamp};
use wire::{HeartbeatReply, LogOptions, LogSelector, SessionMessage};

/// Names one session of a node: drawn at random when the session opens.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct SessionId(String);

impl SessionId {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// How long the session's node waits for its next heartbeat: a little less than the cluster's
    /// period, and never all nodes the same.
    pub(crate) fn pause(&self, period: Duration) -> Duration {
        let spread = self
            .0
            .bytes()
            .fold(7_u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(u32::from(byte)));
        period.mul_f64(0.8 + 0.2 * f64::from(spread % 1000) / 1000.0)
    }
}

impl From<String> for SessionId {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl From<&str> for SessionId {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Names a client that follows logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SubscriptionId(pub u64);

/// The clocks of a manager, read when a command is handled.
#[derive(Clone, Copy, Debug, Default)]
pub struct Now {
    /// Steady: silence and pauses are measured by it.
    pub uptime: Uptime,
    /// The cluster's time, which what is stored goes by.
    pub time: Timestamp,
    /// The time of day, which lines of logs go by.
    pub day: Timestamp,
}

/// Everything that the dispatcher is told.
#[derive(Clone, Debug)]
pub enum Command {
    /// A newer view of the store.
    View(Box<View>),
    /// The node wants a session, whether or not it gets one.
    Attempt {
        node: NodeId,
    },
    /// The node is registered, in a view that was handed in before, and wants its assignments.
    Open {
        node: NodeId,
        session: SessionId,
    },
    Heartbeat {
        node: NodeId,
        session: SessionId,
    },
    /// The node's kernel and names hold this version of its assignments.
    Acknowledge {
        node: NodeId,
        session: SessionId,
        version: u64,
    },
    /// The session's stream has gone, or is full.
    Closed {
        node: NodeId,
        session: SessionId,
    },
    /// The node leaves for good.
    Left {
        node: NodeId,
    },
    /// An [`Output::Write`] is over, whether or not it was written.
    Written,
    Subscribe {
        subscription: SubscriptionId,
        selector: LogSelector,
        options: LogOptions,
    },
    /// The client has gone.
    Unsubscribe {
        subscription: SubscriptionId,
    },
    /// A node has no more for this part of a subscription.
    LogsEnded {
        part: String,
    },
    /// A node's call broke off before the end of this part.
    LogsBroken {
        part: String,
    },
    /// The time that [`Dispatcher::wake`](super::Dispatcher::wake) said has come.
    Tick,
}

/// Everything that the dispatcher wants done, in this order.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "it is carried out at once")]
pub enum Output {
    /// Put a message into the session's stream.
    Send {
        node: NodeId,
        session: SessionId,
        message: SessionMessage,
    },
    /// End the session's stream.
    Close {
        node: NodeId,
        session: SessionId,
    },
    /// The answer to a heartbeat.
    Beat {
        node: NodeId,
        session: SessionId,
        reply: Result<HeartbeatReply, Fault>,
    },
    /// Write what follows from this on the newest view; then say [`Command::Written`]. There is one
    /// at a time.
    Write(Observation),
    Logs(LogOutput),
}

/// What is to be done for those who follow logs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogOutput {
    /// The node will send lines of these tasks under this name.
    Expect { part: String, subscription: SubscriptionId, node: NodeId, tasks: BTreeSet<TaskId> },
    /// No more lines are taken under this name.
    Forget { part: String },
    /// Tell the client that something is missing.
    Missing { subscription: SubscriptionId, fault: Fault },
    /// The client has got everything.
    Over { subscription: SubscriptionId },
}
