//! Who may start a process in a container now.
//!
//! A shim starts one process at a time: it holds a lock over which ends of processes are told, too.
//! It takes in ends by a queue of 32, and gives each that does not fit one second. The program that
//! starts a process ends as well, so starts that wait behind 32 ends stand still for as many
//! seconds, on an idle machine. Whoever waits here instead costs nothing.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Starts in one container at a time: one is being carried out while the next ones are on their
/// way. The ends of all of them fit into the shim's queue.
const STARTS: usize = 4;

/// Turns by container.
#[derive(Debug, Default)]
pub(crate) struct Turns(Mutex<BTreeMap<String, Weak<Semaphore>>>);

impl Turns {
    /// Waits for a turn, which ends when it is dropped. The semaphores are never closed, so there
    /// is always one.
    pub(crate) async fn wait(&self, container: &str) -> Option<OwnedSemaphorePermit> {
        self.of(container).acquire_owned().await.ok()
    }

    fn of(&self, container: &str) -> Arc<Semaphore> {
        let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = turns.get(container).and_then(Weak::upgrade) {
            return known;
        }
        turns.retain(|_, turn| 0 < turn.strong_count());
        let new = Arc::new(Semaphore::new(STARTS));
        turns.insert(container.to_owned(), Arc::downgrade(&new));
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_container_has_so_many_turns_and_is_forgotten_afterwards() {
        let turns = Turns::default();
        let mut held = Vec::new();
        for _ in 0..STARTS {
            held.push(turns.wait("one").await.unwrap());
        }
        let next = turns.wait("one");
        tokio::pin!(next);
        assert!(futures_util::poll!(&mut next).is_pending());
        assert!(turns.wait("two").await.is_some(), "others have their own");
        held.pop();
        assert!(next.await.is_some());
        held.clear();
        drop(turns.wait("three").await);
        drop(turns.wait("four").await);
        assert_eq!(turns.0.lock().unwrap().len(), 1);
    }
}
