//! Carries probes out, one after the other, as long as the container runs.

use super::{Check, Health, OUTPUT_MAX, Probe};
use crate::clock;
use crate::container::Container;
use crate::engine::Engine;
use crate::exec::{ExecConfig, Piece, Running};
use crate::runtime::Exit;
use crate::signals;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use types::FaultKind;

/// For a probe that was killed.
const KILLED: Duration = Duration::from_secs(10);
/// Docker's exit code of a probe that took too long or could not be started.
const FAILED: i32 = -1;

/// Probes a container until `token` is cancelled.
pub(crate) async fn watch_over(
    engine: Engine,
    container: Arc<Container>,
    token: CancellationToken,
) {
    let Some(check) = container.check.clone() else { return };
    let probing = async {
        loop {
            let (health, started) = seen(&container);
            tokio::time::sleep(check.pause(&health, started, clock::now())).await;
            // None: the runtime is away, which says nothing about the container.
            if let Some(probe) = probe(&engine, &container, &check).await
                && !token.is_cancelled()
            {
                note(&engine, &container, &check, probe).await;
            }
        }
    };
    token.run_until_cancelled(probing).await;
}

fn seen(container: &Container) -> (Health, types::Timestamp) {
    let state = container.state.borrow();
    (state.health.clone().unwrap_or_default(), state.started_at)
}

async fn note(engine: &Engine, container: &Container, check: &Check, probe: Probe) {
    let (before, started) = seen(container);
    let after = check.conclude(&before, probe, started);
    let (changed, status) = (before.status != after.status, after.status);
    if changed {
        container.update(|state| state.health = Some(after)).await;
        let action = format!("health_status: {}", status.as_str());
        container.tell(&engine.inner.events, &action, &[]);
    } else {
        container.state.send_modify(|state| state.health = Some(after));
    }
}

async fn probe(engine: &Engine, container: &Arc<Container>, check: &Check) -> Option<Probe> {
    let id = clock::draw_id();
    let start = clock::now();
    let failed =
        |output: String| Some(Probe { start, end: clock::now(), exit_code: FAILED, output });
    let config = ExecConfig {
        command: check.command.clone(),
        stdout: true,
        stderr: true,
        ..ExecConfig::default()
    };
    let launched = match engine.launch(container, &id, &config).await {
        Ok(launched) => launched,
        Err(fault) if fault.kind == FaultKind::Unavailable => return None,
        Err(fault) => return failed(fault.message),
    };
    let runtime = &engine.inner.runtime;
    let mut running = Running::new(runtime, container.id(), &id, launched.output);
    let mut output = Vec::new();
    let ended = tokio::time::timeout(check.timeout, end_of(&mut running, &mut output)).await;
    if let Ok(exit) = ended {
        let output = String::from_utf8_lossy(&output).into_owned();
        return Some(Probe { start, end: clock::now(), exit_code: exit.code, output });
    }
    let killed = runtime.exec_signal(container.id().to_owned(), id, signals::KILL).await;
    if let Err(fault) = killed {
        tracing::warn!(id = container.id(), %fault, "cannot end a probe");
    }
    // Otherwise its streams would go before the runtime has let go of them.
    let _ended = tokio::time::timeout(KILLED, end_of(&mut running, &mut output)).await;
    failed(format!("Health check exceeded timeout ({:?})", check.timeout))
}

/// Reads to the end, and keeps the beginning.
async fn end_of(running: &mut Running, kept: &mut Vec<u8>) -> Exit {
    loop {
        match running.next().await {
            Piece::Ended(exit) => return exit,
            Piece::Output(chunk) => {
                let room = OUTPUT_MAX.saturating_sub(kept.len());
                kept.extend_from_slice(&chunk.bytes[..room.min(chunk.bytes.len())]);
            }
        }
    }
}
