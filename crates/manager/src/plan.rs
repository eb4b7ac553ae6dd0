//! The loop that has the planner asked, and what it says made.
//!
//! A plan is made once, inside the sequencer, on what the log holds by then: it conflicts with
//! nobody. The planner goes into the closure and comes back with its deadline.

use crate::clock::RandomIds;
use planner::{Plan, Planner, Refused};
use raft::Sequencer;
use scope::Scope;
use std::time::Duration;
use store::{Changes, View};
use tokio::sync::oneshot;
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

/// Makes a plan with what the planner remembers.
type Make = fn(&mut Planner, &View, Timestamp) -> Plan;

fn plan(planner: &mut Planner, view: &View, now: Timestamp) -> Plan {
    planner.plan(view, now, &mut RandomIds)
}

/// Why the planning loop ended by itself.
#[derive(Debug, thiserror::Error)]
#[error("the log has ended")]
struct Ended;

async fn run(sequencer: Sequencer, make: Make, token: CancellationToken) -> Result<(), Ended> {
    let mut views = sequencer.watch();
    let planner = Planner::default();
    let mut proposer = Proposer { sequencer, make, planner, refused: Vec::new() };
    loop {
        views.mark_unchanged();
        let outcome = tokio::select! {
            biased;
            () = token.cancelled() => return Ok(()),
            outcome = proposer.propose() => outcome,
        };
        let wait = outcome.unwrap_or_else(|fault| {
            tracing::warn!(%fault, "cannot propose a plan, trying again");
            RETRY
        });
        // A change wakes; the planner's own change does too, which plans again until nothing
        // changes.
        tokio::select! {
            biased;
            () = token.cancelled() => return Ok(()),
            // What was refused will be refused again: not at once, whatever happens meanwhile.
            _ = views.changed(), if proposer.refused.is_empty() => {}
            () = tokio::time::sleep(wait) => {}
        }
        if views.has_changed().is_err() {
            return if token.is_cancelled() { Ok(()) } else { Err(Ended) };
        }
    }
}

struct Proposer {
    sequencer: Sequencer,
    make: Make,
    planner: Planner,
    /// What the rules refused last: it is told once.
    refused: Vec<Refused>,
}

impl Proposer {
    /// Plans once; says how long to wait for the next time if nothing changes.
    async fn propose(&mut self) -> Result<Duration, Fault> {
        let whole = self.sequence(|_, plan| (plan.changes, plan.wake)).await;
        match whole {
            Ok(wake) => {
                self.refused.clear();
                Ok(until(wake, self.sequencer.now()))
            }
            Err(fault) if fault.kind == FaultKind::Unavailable => Err(fault),
            Err(_) => {
                self.propose_apart().await?;
                Ok(RETRY)
            }
        }
    }

    /// Makes what the rules allow of a plan that breaks one, and says what was left out.
    async fn propose_apart(&mut self) -> Result<(), Fault> {
        let refused = self.sequence(|view, plan| planner::apart(view, &plan.changes)).await?;
        for Refused { service, fault } in refused.iter().filter(|it| !self.refused.contains(it)) {
            let service = service.as_ref().map(ToString::to_string);
            tracing::error!(service, %fault, "a part of the plan breaks a rule and is left out");
        }
        self.refused = refused;
        Ok(())
    }

    /// Plans on what the log holds, and changes what `choose` takes of the plan. Returns what else
    /// it says.
    async fn sequence<T: Default + Send + 'static>(
        &mut self,
        choose: fn(&View, Plan) -> (Changes, T),
    ) -> Result<T, Fault> {
        let (sender, back) = oneshot::channel();
        let make = self.make;
        let clock = self.sequencer.clone();
        // It is lost on the way only when the log ends, and this loop with it.
        let mut planner = std::mem::take(&mut self.planner);
        let written = self.sequencer.sequence_own(move |view: &View, now| {
            planner.judge_from(clock.fair_from());
            let plan = make(&mut planner, view, now);
            let (changes, more) = choose(view, plan);
            // Nobody waits for it only when the loop ends.
            sender.send((planner, more)).ok();
            Ok(changes)
        });
        let written = written.await;
        let mut more = T::default();
        if let Ok((planner, said)) = back.await {
            (self.planner, more) = (planner, said);
        }
        written.map(|_| more)
    }
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
    fn mistaken(planner: &mut Planner, view: &View, now: Timestamp) -> Plan {
        PLANS.fetch_add(1, Ordering::Relaxed);
        let mut made = plan(planner, view, now);
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
        let log = raft::Config {
            reserve_bytes: 0,
            ..raft::Config::new(dir.join("raft"), raft::Key::draw())
        };
        let sequencer = raft::open(log, raft::Alone, scope).await.unwrap();
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
        // Changes of others do not make it try again at once: two plans are made for each try.
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
