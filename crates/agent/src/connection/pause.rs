//! How long the agent waits between two sessions.

use crate::session::Ending;
use std::time::Duration;

/// Between two attempts: doubled from the first to the last. Short enough that all nodes are back
/// within a second after a manager is.
const MIN: Duration = Duration::from_millis(100);
const MAX: Duration = Duration::from_millis(600);
/// Before the next manager is asked, where one does not lead.
const NEXT: Duration = Duration::from_millis(10);
/// Where no manager's release and this one understand each other: one of the two programs has to be
/// updated first.
const REFUSED: Duration = Duration::from_secs(30);

/// The pauses of one node.
#[derive(Debug)]
pub struct Pauses {
    next: Duration,
    /// Managers in a row that do not understand this node.
    refusals: usize,
    /// Managers in a row that do not lead.
    followers: usize,
}

impl Default for Pauses {
    fn default() -> Self {
        Self { next: MIN, refusals: 0, followers: 0 }
    }
}

impl Pauses {
    /// The pause after a session with one of so many managers, which are tried in turn.
    pub fn after(&mut self, ending: Ending, managers: usize) -> Duration {
        match ending {
            Ending::Useful => *self = Self::default(),
            Ending::Useless | Ending::NotLeading => self.refusals = 0,
            Ending::Refused => self.refusals += 1,
        }
        if ending == Ending::NotLeading {
            self.followers += 1;
            if self.followers < managers {
                return NEXT;
            }
        }
        // Where none leads, one is about to be elected.
        self.followers = 0;
        if ending == Ending::Refused && managers <= self.refusals {
            // Then each of them is tried again.
            self.refusals = 0;
            return REFUSED;
        }
        let longer = (self.next * 2).min(MAX);
        std::mem::replace(&mut self.next, longer)
    }
}

/// Not all nodes at once.
pub(super) fn jittered(pause: Duration, by: f64) -> Duration {
    pause.mul_f64(by)
}

#[cfg(test)]
mod tests {
    use super::*;
    use Ending::{NotLeading, Refused, Useful, Useless};

    fn pauses<const N: usize>(endings: [Ending; N], managers: usize) -> [u128; N] {
        let mut pauses = Pauses::default();
        endings.map(|ending| pauses.after(ending, managers).as_millis())
    }

    /// A manager that hung answers the attempt that is under way, or the next one.
    #[test]
    fn however_long_a_manager_was_away_the_next_attempt_is_within_a_second() {
        for millis in pauses([Useless; 100], 3) {
            let pause = Duration::from_millis(millis.try_into().unwrap());
            assert!(jittered(pause, 1.3) < Duration::from_secs(1), "{pause:?}");
        }
        assert_eq!(pauses([Useless, Useless, Useful, Useless], 3), [100, 200, 100, 200]);
    }

    #[test]
    fn the_manager_that_leads_is_found_without_pauses() {
        assert_eq!(pauses([NotLeading, NotLeading, NotLeading, NotLeading], 3), [10, 10, 100, 10]);
        assert_eq!(pauses([NotLeading, Useless, NotLeading, NotLeading], 2), [10, 100, 10, 200]);
        assert_eq!(pauses([NotLeading, NotLeading], 1), [100, 200]);
    }

    #[test]
    fn a_node_waits_for_an_update_only_where_all_managers_refuse_it() {
        assert_eq!(pauses([Refused, Refused, Refused], 1), [30_000; 3]);
        assert_eq!(pauses([Refused, Useless, Refused, Useless], 2), [100, 200, 400, 600]);
        assert_eq!(pauses([Refused, Refused, Refused, Refused], 2), [100, 30_000, 200, 30_000]);
        assert_eq!(pauses([Refused, Refused, Useful, Refused], 3), [100, 200, 100, 200]);
    }
}
