//! Who may start a process in a container now.
//!
//! A shim starts one process at a time: it holds a lock over which ends of processes are told, too.
//! It takes in ends by a queue of 32, and gives each that does not fit one second. The program that
//! starts a process ends as well, so starts that wait behind 32 ends stand still for as many
//! seconds, on an idle machine. Whoever waits here instead costs nothing.

use engine::ByName;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Starts in one container at a time: one is being carried out while the next ones are on their
/// way. The ends of all of them fit into the shim's queue.
const STARTS: usize = 4;

/// Permits to start a process, by container.
#[derive(Debug, Default)]
pub(crate) struct Starts(ByName<Semaphore>);

impl Starts {
    /// Waits for a permit, which is given back when it is dropped. The semaphores are never closed,
    /// so there is always one.
    pub(crate) async fn permit(&self, container: &str) -> Option<OwnedSemaphorePermit> {
        let permits: Arc<Semaphore> = self.0.get(container, || Semaphore::new(STARTS));
        permits.acquire_owned().await.ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_container_has_so_many_starts_at_a_time() {
        let starts = Starts::default();
        let mut held = Vec::new();
        for _ in 0..STARTS {
            held.push(starts.permit("one").await.unwrap());
        }
        let next = starts.permit("one");
        tokio::pin!(next);
        assert!(futures_util::poll!(&mut next).is_pending());
        assert!(starts.permit("two").await.is_some(), "others have their own");
        held.pop();
        assert!(next.await.is_some());
    }
}
