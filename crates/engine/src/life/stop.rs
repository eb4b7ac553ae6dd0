//! Ending a container: signals, and waiting for what they do.

use crate::container::Container;
use crate::engine::Engine;
use crate::info::Status;
use crate::signals;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use types::Fault;

/// After SIGKILL: the kernel may be busy, the runtime may be away.
const KILLED: Duration = Duration::from_secs(30);

impl Engine {
    /// Ends a container: its stop signal (or `signal`), SIGKILL after the grace period. Returns
    /// when it has ended; false where it did not run.
    pub async fn stop(
        &self,
        name: &str,
        signal: Option<&str>,
        grace: Option<Duration>,
    ) -> Result<bool, Fault> {
        let (engine, container) = (self.clone(), self.find(name)?);
        let (signal, grace) = how_to_stop(&container, signal, grace)?;
        self.complete(async move { engine.stop_one(&container, signal, grace).await }).await
    }

    /// Ends a container as [`Self::stop`] does, where it runs, and starts it anew. One that removes
    /// itself after its end stays.
    pub async fn restart(
        &self,
        name: &str,
        signal: Option<&str>,
        grace: Option<Duration>,
    ) -> Result<(), Fault> {
        let (engine, container) = (self.clone(), self.find(name)?);
        let (signal, grace) = how_to_stop(&container, signal, grace)?;
        self.complete(async move {
            container.restarting.fetch_add(1, Ordering::SeqCst);
            let restarted = match engine.stop_one(&container, signal, grace).await {
                Ok(_) => engine.start_one(&container, &[]).await,
                Err(fault) => Err(fault),
            };
            container.restarting.fetch_sub(1, Ordering::SeqCst);
            match restarted {
                Ok(_) => container.tell(&engine.inner.events, "restart", &[]),
                Err(_) => engine.remove_itself(&container).await,
            }
            restarted.map(drop)
        })
        .await
    }

    async fn stop_one(
        &self,
        container: &Arc<Container>,
        signal: i32,
        grace: Duration,
    ) -> Result<bool, Fault> {
        if container.status() != Status::Running {
            return Ok(false);
        }
        if !grace.is_zero() {
            self.signal(container, signal).await?;
        }
        if grace.is_zero() || !ends_within(container, grace).await {
            self.end_by_force(container).await?;
        }
        container.tell(&self.inner.events, "stop", &[]);
        Ok(true)
    }

    /// Kills a container and waits for its end.
    pub(super) async fn end_by_force(&self, container: &Arc<Container>) -> Result<(), Fault> {
        self.signal(container, signals::KILL).await?;
        if ends_within(container, KILLED).await {
            return Ok(());
        }
        Err(Fault::internal(format!(
            "container {} does not end although it was killed",
            container.id()
        )))
    }

    async fn signal(&self, container: &Container, signal: i32) -> Result<(), Fault> {
        self.inner.runtime.signal(container.id().to_owned(), signal, false).await?;
        container.tell(&self.inner.events, "kill", &[("signal", signal.to_string())]);
        Ok(())
    }

    /// Sends a signal (`SIGHUP`, `HUP`, `1`; empty: SIGKILL) and does not wait.
    pub async fn kill(&self, name: &str, signal: &str) -> Result<(), Fault> {
        let signal = if signal.is_empty() { signals::KILL } else { signals::parse(signal)? };
        let container = self.running(name)?;
        self.signal(&container, signal).await
    }
}

/// The signal and the grace period: what is asked for, else the container's own.
fn how_to_stop(
    container: &Container,
    signal: Option<&str>,
    grace: Option<Duration>,
) -> Result<(i32, Duration), Fault> {
    let signal = match signal.filter(|signal| !signal.is_empty()) {
        Some(signal) => signals::parse(signal)?,
        None => container.stop_signal(),
    };
    Ok((signal, grace.unwrap_or_else(|| container.fixed.config.spec.grace())))
}

/// Waits for the end of the run that is going on now; false where it takes too long.
async fn ends_within(container: &Container, limit: Duration) -> bool {
    let mut state = container.state.subscribe();
    let run = state.borrow().starts;
    let ended = state.wait_for(|state| state.status != Status::Running || state.starts != run);
    tokio::time::timeout(limit, ended).await.is_ok()
}
