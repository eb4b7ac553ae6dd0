//! How a node leaves, step by step.
//!
//! Pure. Managers are told first: whoever sends requests here must hear of it before the tasks that
//! answer them go, and new tasks must not come. While they go, all others know the way here: what is
//! under way comes to its end. Then managers are told that it goes for good.

use crate::Now;
use crate::worker::Worker;
use std::time::Duration;

/// For one manager to answer.
pub const ANSWER_MAX: Duration = Duration::from_secs(5);
/// How long tasks may take to go in order; what is left then goes with the node.
const TASKS_FIRST_MAX: Duration = Duration::from_secs(30);

/// How far a node that leaves is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Leaving {
    /// A manager is told that it is about to.
    #[default]
    Notice,
    /// Its tasks go in order, as managers say; until this uptime at the latest.
    TasksFirst(Duration),
    /// A manager is told that it goes; no more orders are taken.
    Farewell,
    /// One was told, or could not be: what is left is taken down.
    TakeDown,
}

impl Leaving {
    /// A manager was told, or could not be. Where that leads to [`Self::Farewell`], the connection to
    /// managers ends, and one is to be told that this node goes for good.
    #[must_use]
    pub fn answered(self, is_told: bool, now: Now) -> Self {
        match self {
            Self::Notice if is_told => Self::TasksFirst(now.uptime + TASKS_FIRST_MAX),
            // Its tasks go with it.
            Self::Notice => Self::Farewell,
            Self::Farewell => Self::TakeDown,
            Self::TasksFirst(_) | Self::TakeDown => self,
        }
    }

    /// Says whether its tasks are down, or have had their time: it is for [`Self::Farewell`] now.
    pub fn parts(self, worker: &Worker, now: Now) -> bool {
        match self {
            Self::TasksFirst(until) => worker.is_over() || until <= now.uptime,
            Self::Notice | Self::Farewell | Self::TakeDown => false,
        }
    }

    /// Says whether nothing is left of it.
    pub fn is_gone(self, worker: &Worker) -> bool {
        self == Self::TakeDown && worker.is_empty()
    }

    /// Says whether managers' orders are heard.
    pub fn takes_orders(self) -> bool {
        match self {
            Self::Notice | Self::TasksFirst(_) => true,
            Self::Farewell | Self::TakeDown => false,
        }
    }

    /// When something is due without another event, in uptime.
    pub fn deadline(self) -> Option<Duration> {
        match self {
            Self::TasksFirst(until) => Some(until),
            Self::Notice | Self::Farewell | Self::TakeDown => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Now {
        Now { uptime: Duration::from_secs(seconds), ..Now::default() }
    }

    #[test]
    fn tasks_go_first_where_managers_know_and_for_a_bounded_time() {
        let mut worker = Worker::default();
        let task = types::Task { id: "t".into(), ..types::Task::default() };
        let tasks = [("t".into(), task)].into_iter().collect();
        worker.handle(crate::worker::Event::Whole { tasks, withdrawn: [].into() }, at(0));
        let leaving = Leaving::default().answered(true, at(1));
        assert!(leaving.takes_orders() && !leaving.parts(&worker, at(30)));
        assert!(leaving.parts(&worker, at(31)) && leaving.deadline() == Some(at(31).uptime));
        assert!(leaving.parts(&Worker::default(), at(1)), "nothing runs");
        let parted = Leaving::Farewell.answered(false, at(32));
        assert!(!parted.takes_orders() && !parted.is_gone(&worker));
        assert!(parted.is_gone(&Worker::default()));
    }

    #[test]
    fn where_nobody_can_be_told_the_tasks_go_with_the_node() {
        assert_eq!(Leaving::Notice.answered(false, at(0)), Leaving::Farewell);
    }
}
