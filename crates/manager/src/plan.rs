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
    scope.spawn("plan", run(sequencer, plan, token));
}

type Planner = fn(&View, Timestamp) -> Plan;

fn plan(view: &View, now: Timestamp) -> Plan {
    planner::plan(view, now, &mut RandomIds)
}

/// Why the planning loop ended by itself.
#[derive(Debug, thiserror::Error)]
#[error("the log has ended")]
struct Ended;

async fn run(sequencer: Sequencer, plan: Planner, token: CancellationToken) -> Result<(), Ended> {
    let mut views = sequencer.watch();
    let mut refused = Vec::new();
    loop {
        let wait = propose(&sequencer, plan, &mut views, &mut refused).await;
        let wait = wait.unwrap_or_else(|fault| {
            tracing::warn!(%fault, "cannot propose a plan, trying again");
            RETRY
        });
        // A change wakes; the planner's own change does too, which plans again until nothing
        // changes.
        tokio::select! {
            biased;
            () = token.cancelled() => return Ok(()),
            // What was refused will be refused again: not at once, whatever happens meanwhile.
            _ = views.changed(), if refused.is_empty() => {}
            () = tokio::time::sleep(wait) => {}
        }
        if views.has_changed().is_err() {
            return if token.is_cancelled() { Ok(()) } else { Err(Ended) };
        }
    }
}

/// Plans once; says how long to wait for the next time if nothing changes. `before` has what the
/// rules refused last: it is told once.
async fn propose(
    sequencer: &Sequencer,
    plan: Planner,
    views: &mut watch::Receiver<View>,
    before: &mut Vec<Refused>,
) -> Result<Duration, Fault> {
    let view = views.borrow_and_update().clone();
    let now = sequencer.now();
    let Plan { changes, wake } = plan(&view, now);
    if changes.is_empty() {
        before.clear();
        return Ok(until(wake, now));
    }
    // The closure plans anew on what the log holds by then, so it conflicts with nobody.
    let (sender, wake) = oneshot::channel();
    let whole = sequencer.sequence(move |view: &View, now| {
        let Plan { changes, wake } = plan(view, now);
        // Nobody waits for it only when the loop ends.
        sender.send(wake).ok();
        Ok(changes)
    });
    match whole.await {
        Ok(_) => before.clear(),
        Err(fault) if fault.kind == FaultKind::Unavailable => return Err(fault),
        Err(_) => {
            let refused = propose_apart(sequencer, plan).await?;
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
async fn propose_apart(sequencer: &Sequencer, plan: Planner) -> Result<Vec<Refused>, Fault> {
    let (sender, refused) = oneshot::channel();
    sequencer
        .sequence(move |view: &View, now| {
            let (changes, refused) = planner::apart(view, &plan(view, now).changes);
            sender.send(refused).ok();
            Ok(changes)
        })
        .await?;
    Ok(refused.await.unwrap_or_default())
}

fn until(wake: Option<Timestamp>, now: Timestamp) -> Duration {
    wake.map_or(WAIT_MAX, |wake| wake.since(now)).clamp(Duration::from_millis(1), WAIT_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use store::{Change, Object, Tx};
    use types::{RestartCondition, Service, ServiceMode, Task, TaskState};

    static PLANS: AtomicUsize = AtomicUsize::new(0);

    /// A planner with a mistake: it revives a task of the service `bad`.
    fn mistaken(view: &View, now: Timestamp) -> Plan {
        PLANS.fetch_add(1, Ordering::Relaxed);
        let mut made = plan(view, now);
        if let Some(mut task) = view.task(&"bad-1".into()).map(|task| Task::clone(task)) {
            task.status.state = TaskState::Running;
            made.changes.changes.push(Change::Put(Object::Task(task.into())));
        }
        made
    }

    fn service(name: &str) -> Service {
        let mut service = Service { id: name.into(), ..Service::default() };
        name.clone_into(&mut service.spec.name);
        service.spec.mode = ServiceMode::Replicated { replicas: 1 };
        service.spec.task.restart.condition = RestartCondition::None;
        service
    }

    async fn cluster(scope: &mut Scope, dir: &std::path::Path) -> Sequencer {
        let log = raft::Config { reserve_bytes: 0, ..raft::Config::new(dir.join("raft")) };
        let sequencer = raft::open(log, scope).await.unwrap();
        let objects = |view: &View, _| {
            let mut tx = Tx::new(view);
            let (good, bad) = (service("good"), service("bad"));
            let mut task = Task { id: "bad-1".into(), slot: 1, ..Task::default() };
            task.spec = bad.spec.task.clone();
            task.service = bad.id.clone();
            task.status.state = TaskState::Failed;
            tx.put_service(good);
            tx.put_service(bad);
            tx.put_task(task);
            Ok(tx.finish())
        };
        sequencer.sequence(objects).await.unwrap();
        sequencer
    }

    #[tokio::test]
    async fn a_plan_that_breaks_a_rule_falls_back_to_what_is_fine_and_rests() {
        let (mut scope, dir) = (Scope::new(), tempfile::tempdir().unwrap());
        let sequencer = cluster(&mut scope, dir.path()).await;
        scope.spawn("plan", run(sequencer.clone(), mistaken, scope.token()));
        let is_told = |view: &View| {
            let bad = view.service(&"bad".into()).unwrap();
            bad.allocation_error.starts_with("cannot be planned: task bad-1 cannot go from failed")
        };
        let mut views = sequencer.watch();
        let told = tokio::time::timeout(Duration::from_secs(30), views.wait_for(is_told));
        let view = told.await.expect("it falls back").unwrap().clone();
        assert_eq!(view.tasks_of_service(&"good".into()).count(), 1);
        assert_eq!(view.task(&"bad-1".into()).unwrap().status.state, TaskState::Failed);
        // Changes of others do not make it try again at once: three plans are made for each try.
        let before = PLANS.load(Ordering::Relaxed);
        for count in 0..50 {
            let label = move |view: &View, _| {
                let mut tx = Tx::new(view);
                tx.edit_service(&"good".into(), |service| {
                    service.spec.labels.insert("count".to_owned(), count.to_string());
                });
                Ok(tx.finish())
            };
            sequencer.sequence(label).await.unwrap();
        }
        let plans = PLANS.load(Ordering::Relaxed) - before;
        assert!(plans < 50, "{plans} plans for 50 changes");
        scope.cancel();
        scope.join().await.unwrap();
    }
}
