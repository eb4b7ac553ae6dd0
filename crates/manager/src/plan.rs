//! The loop that asks the planner and proposes what it says.

use crate::clock::RandomIds;
use planner::{Plan, Refused};
use raft::Sequencer;
use scope::Scope;
use std::time::Duration;
use store::View;
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;
use types::{Fault, FaultKind, Timestamp};

/// After a proposal failed.
const RETRY: Duration = Duration::from_secs(1);
/// However far the planner's deadline: the clock may have been set meanwhile.
const WAIT_MAX: Duration = Duration::from_mins(1);

pub(crate) fn start(sequencer: Sequencer, scope: &mut Scope) {
    let token = scope.token();
    scope.spawn("plan", run(sequencer, token));
}

/// Why the planning loop ended by itself.
#[derive(Debug, thiserror::Error)]
#[error("the log has ended")]
struct Ended;

async fn run(sequencer: Sequencer, token: CancellationToken) -> Result<(), Ended> {
    let mut views = sequencer.watch();
    let mut refused = Vec::new();
    loop {
        let wait = propose(&sequencer, &mut views, &mut refused).await.unwrap_or_else(|fault| {
            tracing::warn!(%fault, "cannot propose a plan, trying again");
            RETRY
        });
        // A change wakes; the planner's own change does too, which plans again until nothing
        // changes.
        tokio::select! {
            biased;
            () = token.cancelled() => return Ok(()),
            changed = views.changed() => if changed.is_err() {
                return if token.is_cancelled() { Ok(()) } else { Err(Ended) };
            },
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// Plans once; says how long to wait for the next time if nothing changes. `before` has what the
/// rules refused last: it is told once.
async fn propose(
    sequencer: &Sequencer,
    views: &mut watch::Receiver<View>,
    before: &mut Vec<Refused>,
) -> Result<Duration, Fault> {
    let view = views.borrow_and_update().clone();
    let now = sequencer.now();
    let plan = planner::plan(&view, now, &mut RandomIds);
    if plan.changes.is_empty() {
        before.clear();
        return Ok(until(plan.wake, now));
    }
    // The closure plans anew on what the log holds by then, so it conflicts with nobody.
    let (sender, wake) = oneshot::channel();
    let whole = sequencer.sequence(move |view: &View, now| {
        let Plan { changes, wake, .. } = planner::plan(view, now, &mut RandomIds);
        // Nobody waits for it only when the loop ends.
        sender.send(wake).ok();
        Ok(changes)
    });
    match whole.await {
        Ok(_) => before.clear(),
        Err(fault) if fault.kind == FaultKind::Unavailable => return Err(fault),
        Err(_) => {
            let refused = propose_apart(sequencer).await?;
            for Refused { service, fault } in refused.iter().filter(|it| !before.contains(it)) {
                let service = service.as_ref().map(ToString::to_string);
                tracing::error!(service, %fault, "a part of the plan breaks a rule and is left out");
            }
            *before = refused;
            return Ok(RETRY);
        }
    }
    Ok(until(wake.await.unwrap_or_default(), sequencer.now()))
}

/// Makes what the rules allow of a plan that breaks one; says what was left out.
async fn propose_apart(sequencer: &Sequencer) -> Result<Vec<Refused>, Fault> {
    let (sender, refused) = oneshot::channel();
    sequencer
        .sequence(move |view: &View, now| {
            let plan = planner::plan(view, now, &mut RandomIds);
            let (changes, refused) = planner::apart(view, &plan.changes);
            sender.send(refused).ok();
            Ok(changes)
        })
        .await?;
    Ok(refused.await.unwrap_or_default())
}

fn until(wake: Option<Timestamp>, now: Timestamp) -> Duration {
    wake.map_or(WAIT_MAX, |wake| wake.since(now)).clamp(Duration::from_millis(1), WAIT_MAX)
}
