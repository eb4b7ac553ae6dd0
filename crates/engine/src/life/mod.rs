//! The life of containers: made, started, ended, removed, and taken over after a restart.
//!
//! Whoever changes a container holds its `operation` lock. The ends of containers come in by one
//! loop (`run`), from the runtime; whoever stops a container only sends signals and waits for
//! its state to change.

mod create;
mod end;
mod inside;
mod mounts;
mod remove;
mod sources;
mod start;
mod stop;
mod takeover;
#[cfg(test)]
mod tests;
mod unseen;

pub use create::Created;
pub(crate) use start::code_of;

use crate::engine::Engine;
use crate::runtime::{Exit, Happening};
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use std::sync::PoisonError;
use std::time::Duration;
use types::Fault;

/// For pumps and requests, when the engine stops.
const LINGER: Duration = Duration::from_secs(5);

/// Takes in what the runtime tells, until the engine stops.
pub(crate) async fn run(
    engine: Engine,
    mut happenings: BoxStream<'static, Happening>,
) -> Result<(), Fault> {
    let token = engine.inner.token.clone();
    loop {
        let happening = tokio::select! {
            biased;
            () = token.cancelled() => break,
            happening = happenings.next() => happening,
        };
        let Some(happening) = happening else {
            return Err(Fault::internal("the runtime tells nothing any more"));
        };
        engine.handle(happening);
    }
    engine.inner.tracker.close();
    if tokio::time::timeout(LINGER, engine.inner.tracker.wait()).await.is_err() {
        tracing::warn!("the engine stops while something still goes on");
    }
    // All pumps have ended.
    drop(engine.inner.reader_lock.lock().unwrap_or_else(PoisonError::into_inner).take());
    Ok(())
}

impl Engine {
    fn handle(&self, happening: Happening) {
        match happening {
            Happening::Lost => self.lost_the_runtime(),
            Happening::Resubscribed => {
                self.found_the_runtime();
                let engine = self.clone();
                self.inner.tracker.spawn(async move { engine.catch_up().await });
            }
            Happening::Ended { id, exit } => self.note_end(&id, Some(exit)),
            Happening::OutOfMemory { id } => {
                let container = self.registry().of_id(&id);
                if let Some(container) = container {
                    container.state.send_modify(|state| state.oom_killed = true);
                    container.tell(&self.inner.events, "oom", &[]);
                }
            }
        }
    }

    /// Follows the end of a container up, beside the loop.
    pub(crate) fn note_end(&self, id: &str, exit: Option<Exit>) {
        let container = self.registry().of_id(id);
        if let Some(container) = container {
            let engine = self.clone();
            self.inner.tracker.spawn(async move { engine.ended(&container, exit).await });
        }
    }
}
