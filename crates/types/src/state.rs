//! Where a task is in its life, and who may move it on.
//!
//! Invariant: a task's state only ever increases, and every state is left by exactly one writer.
//! (`Orphaned` is the one exception: the dispatcher gives up on tasks of a node it has lost.)

use serde::{Deserialize, Serialize};

/// What was observed of a task.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum TaskState {
    /// Created; its addresses are not allocated yet.
    #[default]
    New,
    /// Allocated; waits for a node.
    Pending,
    /// Has a node.
    Assigned,
    /// The node knows of it.
    Accepted,
    /// Its image and container are being prepared.
    Preparing,
    /// Its container exists.
    Ready,
    /// Its process has been started; where it has a health check, it is not healthy yet.
    Starting,
    /// It serves.
    Running,
    /// It ended by itself with exit code 0.
    Complete,
    /// It ended because the cluster wanted it to.
    Shutdown,
    /// It ended by itself with an error.
    Failed,
    /// The node could not prepare it.
    Rejected,
    /// Its node is lost.
    Orphaned,
}

/// What the cluster wants of a task.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum DesiredState {
    /// Prepare it, do not start it (a restart delay runs, or an update starts it later).
    Ready,
    /// Run it.
    #[default]
    Running,
    /// Stop it and keep its record.
    Shutdown,
    /// Stop it and forget it.
    Remove,
}

/// Who may write a task's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writer {
    Allocator,
    Scheduler,
    Agent,
    Dispatcher,
}

impl TaskState {
    /// Every state, in order.
    pub const ALL: [Self; 13] = [
        Self::New,
        Self::Pending,
        Self::Assigned,
        Self::Accepted,
        Self::Preparing,
        Self::Ready,
        Self::Starting,
        Self::Running,
        Self::Complete,
        Self::Shutdown,
        Self::Failed,
        Self::Rejected,
        Self::Orphaned,
    ];

    /// Says whether a task in this state has ended for good.
    pub fn is_terminal(self) -> bool {
        self > Self::Running
    }

    /// Says whether a task that ended like this ended by a mistake: its own, or its node's that
    /// could not prepare it.
    pub fn is_failure(self) -> bool {
        match self {
            Self::Failed | Self::Rejected => true,
            Self::New
            | Self::Pending
            | Self::Assigned
            | Self::Accepted
            | Self::Preparing
            | Self::Ready
            | Self::Starting
            | Self::Running
            | Self::Complete
            | Self::Shutdown
            | Self::Orphaned => false,
        }
    }

    /// Says whether `by` may move a task from this state to `next`.
    pub fn may_become(self, next: Self, by: Writer) -> bool {
        let on_a_node = Self::Assigned <= self && !self.is_terminal();
        match by {
            Writer::Allocator => (self, next) == (Self::New, Self::Pending),
            Writer::Scheduler => (self, next) == (Self::Pending, Self::Assigned),
            Writer::Agent => on_a_node && self < next && next < Self::Orphaned,
            Writer::Dispatcher => on_a_node && next == Self::Orphaned,
        }
    }

    /// The word the Engine API uses.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Pending => "pending",
            Self::Assigned => "assigned",
            Self::Accepted => "accepted",
            Self::Preparing => "preparing",
            Self::Ready => "ready",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Complete => "complete",
            Self::Shutdown => "shutdown",
            Self::Failed => "failed",
            Self::Rejected => "rejected",
            Self::Orphaned => "orphaned",
        }
    }
}

impl DesiredState {
    /// The word the Engine API uses.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Running => "running",
            Self::Shutdown => "shutdown",
            Self::Remove => "remove",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WRITERS: [Writer; 4] =
        [Writer::Allocator, Writer::Scheduler, Writer::Agent, Writer::Dispatcher];

    fn pairs() -> impl Iterator<Item = (TaskState, TaskState)> {
        TaskState::ALL.into_iter().flat_map(|from| TaskState::ALL.map(|to| (from, to)))
    }

    #[test]
    fn a_step_has_one_owner() {
        for (from, to) in pairs() {
            let owners = WRITERS.into_iter().filter(|by| from.may_become(to, *by)).count();
            assert!(owners <= 1, "{from:?} -> {to:?} has {owners} owners");
        }
    }

    #[test]
    fn states_only_rise_and_ends_are_final() {
        for (from, to) in pairs() {
            if WRITERS.into_iter().any(|by| from.may_become(to, by)) {
                assert!(from < to, "{from:?} -> {to:?} falls");
                assert!(!from.is_terminal(), "{from:?} is final");
            }
        }
    }
}
