//! What follows when a container has ended.

use crate::config::NetworkMode;
use crate::container::Container;
use crate::engine::Engine;
use crate::info::Status;
use crate::runtime::{Exit, State};
use crate::{clock, memory, pump, told};
use std::sync::Arc;
use std::time::Duration;
use types::{FaultKind, Timestamp};

/// For the rest of the output of a container that has ended.
const DRAIN: Duration = Duration::from_secs(15);
/// Between two tries while the runtime is away.
const PAUSE: Duration = Duration::from_millis(500);
/// Docker's exit code where nobody knows how a container ended, e.g. when the machine went down.
pub(super) const UNKNOWN: i32 = 255;

impl Engine {
    /// Notes the end of a container: its output is complete, its network and task are gone. Does
    /// nothing for an end of an earlier run: an end before the start looks like one, but the clock
    /// may have been set back, so the runtime is asked.
    pub(crate) async fn ended(&self, container: &Arc<Container>, exit: Option<Exit>) {
        let turn = container.operation.lock().await;
        let (status, started) = {
            let state = container.state.borrow();
            (state.status, state.started_at)
        };
        if status != Status::Running {
            return;
        }
        let certain = exit.filter(|exit| started <= exit.at);
        if certain.is_none() && self.still_runs(container).await {
            return;
        }
        if let Some(pump) = &container.live().pump {
            pump.ended.cancel();
        }
        let Some(reaped) = self.reap(container).await else { return };
        let unknown = || Exit { code: UNKNOWN, at: clock::now() };
        let mut exit = certain.or(reaped).or(exit).unwrap_or_else(unknown);
        if exit.at == Timestamp::default() {
            exit.at = clock::now();
        }
        self.take_down(container).await;
        container
            .update(|state| {
                state.status = Status::Exited;
                state.pid = 0;
                state.exit_code = exit.code;
                state.finished_at = exit.at;
            })
            .await;
        // One that was taken over may have been started at a moment that nobody has written down.
        let is_known = started != Timestamp::default();
        let lasted = if is_known { exit.at.since(started).as_secs() } else { 0 };
        let how = [("exitCode", exit.code.to_string()), ("execDuration", lasted.to_string())];
        container.tell(&self.inner.events, "die", &how);
        told::let_go(container, &self.inner.events);
        drop(turn);
        self.remove_itself(container).await;
    }

    /// Looks again where the end is in doubt: it may have been started anew. True also when the
    /// engine stops meanwhile: then the next one looks.
    async fn still_runs(&self, container: &Container) -> bool {
        match self.known_state(container).await {
            None | Some(Some(State::Running { .. } | State::Unknown)) => true,
            Some(Some(State::Prepared | State::Ended(_)) | None) => false,
        }
    }

    /// Asks how a container is until the runtime can tell: nothing of it is there only where it says
    /// so. `None` when the engine stops meanwhile.
    pub(super) async fn known_state(&self, container: &Container) -> Option<Option<State>> {
        loop {
            match self.inner.runtime.state(container.id().to_owned()).await {
                Ok(state) if state != Some(State::Unknown) => return Some(state),
                Err(fault) if fault.kind == FaultKind::NotFound => return Some(None),
                other => {
                    if let Err(fault) = other {
                        tracing::debug!(id = container.id(), %fault, "cannot see how a container is");
                    }
                    let pause = tokio::time::sleep(PAUSE);
                    self.inner.token.run_until_cancelled(pause).await?;
                }
            }
        }
    }

    /// Has the runtime forget the task, which waits for the rest of the output. `None` when the
    /// engine stops meanwhile: then the next one does it.
    async fn reap(&self, container: &Container) -> Option<Option<Exit>> {
        loop {
            match self.inner.runtime.reap(container.id().to_owned()).await {
                Ok(exit) => return Some(exit),
                Err(fault) if fault.kind == FaultKind::Unavailable => {
                    let pause = tokio::time::sleep(PAUSE);
                    self.inner.token.run_until_cancelled(pause).await?;
                }
                Err(fault) => {
                    if fault.kind != FaultKind::NotFound {
                        let id = container.id();
                        tracing::warn!(id, %fault, "the task of a container stays until it is removed");
                    }
                    return Some(None);
                }
            }
        }
    }

    /// Ends everything that goes on for a container while it runs.
    pub(super) async fn take_down(&self, container: &Container) {
        let (pump, health) = {
            let mut live = container.live();
            live.stdin = None;
            live.address = None;
            live.netns = None;
            (live.pump.take(), live.health.take())
        };
        if let Some(health) = health {
            health.cancel();
        }
        if let Some(pump) = pump {
            pump.finish.cancel();
            if tokio::time::timeout(DRAIN, pump.done).await.is_err() {
                tracing::warn!(id = container.id(), "the end of a container's output is lost");
            }
        }
        pump::close(container);
        if container.fixed.config.network == NetworkMode::Bridge
            && let Err(error) = self.inner.dataplane.detach(container.id()).await
        {
            tracing::warn!(id = container.id(), %error, "a container's network stays");
        }
        self.release_volumes(container).await;
        let run = container.run.clone();
        let removed = tokio::task::spawn_blocking(move || memory::remove_run(&run)).await;
        if !matches!(removed, Ok(Ok(()))) {
            let id = container.id();
            tracing::warn!(id, ?removed, "a container's streams, secrets or configs stay");
        }
    }
}
