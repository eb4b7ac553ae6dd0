//! Containers that end while the runtime is away. Nobody tells, but the kernel knows whether a
//! process is there: what has gone does not stay "running" until somebody comes back.

use super::end::UNKNOWN;
use crate::clock;
use crate::container::Container;
use crate::engine::Engine;
use crate::info::Status;
use crate::told;
use host::Process;
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Between two looks at the processes.
const LOOK: Duration = Duration::from_millis(500);
/// So often a process is found gone before it counts: a runtime that is started anew is back
/// within a second or two, and tells how its containers ended.
const LOOKS: u32 = 6;
const REASON: &str = "it ended while the container runtime was away; nobody knows how";

impl Engine {
    /// The runtime does not tell any more: watches the processes themselves until it does.
    pub(super) fn lost_the_runtime(&self) {
        let token = self.inner.token.child_token();
        if let Some(before) = self.lost().replace(token.clone()) {
            before.cancel();
        }
        let engine = self.clone();
        let watching = async move { engine.watch_processes().await };
        self.inner.tracker.spawn(async move { token.run_until_cancelled(watching).await });
    }

    /// The runtime tells again.
    pub(super) fn found_the_runtime(&self) {
        if let Some(token) = self.lost().take() {
            token.cancel();
        }
    }

    fn lost(&self) -> std::sync::MutexGuard<'_, Option<CancellationToken>> {
        self.inner.lost.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn watch_processes(&self) {
        let mut seen = Seen::default();
        loop {
            for container in self.containers() {
                let (status, pid) = {
                    let state = container.state.borrow();
                    (state.status, state.pid)
                };
                if status != Status::Running || pid == 0 {
                    continue;
                }
                // /proc never waits for a disk.
                if seen.is_gone(container.id(), Process::with_pid(pid.cast_signed())) {
                    self.ended_unseen(&container).await;
                }
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn ended_unseen(&self, container: &Arc<Container>) {
        // Whoever holds it waits for the runtime; nothing is changed under it. The next look comes.
        let Ok(_turn) = container.operation.try_lock() else { return };
        if container.status() != Status::Running {
            return;
        }
        tracing::warn!(id = container.id(), "a container ended while the runtime was away");
        self.take_down(container).await;
        container
            .update(|state| {
                state.status = Status::Exited;
                state.pid = 0;
                state.exit_code = UNKNOWN;
                REASON.clone_into(&mut state.error);
                state.finished_at = clock::now();
            })
            .await;
        container.tell(&self.inner.events, "die", &[("exitCode", UNKNOWN.to_string())]);
        told::let_go(container, &self.inner.events);
    }
}

/// What was seen, by container.
#[derive(Debug, Default)]
struct Seen(BTreeMap<String, Watched>);

#[derive(Debug)]
struct Watched {
    /// What the first look found.
    process: Option<Process>,
    /// How often it was not there since.
    found_gone: u32,
}

impl Seen {
    /// Takes what a look found; says whether the process counts as gone, at every look from then
    /// on.
    fn is_gone(&mut self, id: &str, found: Option<Process>) -> bool {
        let first = Watched { process: found, found_gone: 0 };
        let watched = self.0.entry(id.to_owned()).or_insert(first);
        let lives = found.is_some() && found == watched.process;
        watched.found_gone = if lives { 0 } else { watched.found_gone + 1 };
        LOOKS <= watched.found_gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "tests run programs")]
    fn what_has_gone_is_said_again_until_it_was_heard() {
        let own = Process::with_pid(std::process::id().cast_signed());
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let later = Process::with_pid(child.id().cast_signed());
        assert!(own.is_some() && later.is_some());
        let mut seen = Seen::default();
        let mut look = |found| seen.is_gone("c", found);
        assert!(!look(own) && !look(None) && !look(own));
        for _ in 1..LOOKS {
            assert!(!look(later), "a later process is not its own");
        }
        // Its lock may have been held at the first of these.
        assert!(look(None) && look(None) && look(later));
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
