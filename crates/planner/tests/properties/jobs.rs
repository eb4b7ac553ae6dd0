//! Jobs.

use super::steps::Step;
use super::world::{World, named, some_healthy};
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::sync::Arc;
use store::{Tx, View};
use types::{JobStatus, RestartCondition, Service, ServiceMode, Task, TaskState, Timestamp};

/// What a change of its spec is to a job: another iteration begins.
pub(super) fn run_anew(service: &mut Service, now: Timestamp) {
    let job = service.job.take();
    let iteration = job.map_or(0, |job| job.iteration + 1);
    let last_execution = Some(now);
    service.job = Some(JobStatus { iteration, last_execution, ..JobStatus::default() });
}

/// No more slots are to run than may, and all that is wanted is of the present iteration.
pub(super) fn check(view: &View, service: &Service) {
    let Some(job) = &service.job else { return };
    let tasks = view.tasks_of_service(&service.id).filter(|task| task.is_wanted());
    let wanted: Vec<&Arc<Task>> = tasks.collect();
    let name = &service.spec.name;
    assert!(wanted.iter().all(|it| it.iteration == Some(job.iteration)), "{name}: a former one");
    if let ServiceMode::ReplicatedJob { max_concurrent, total_completions } = service.spec.mode {
        let slots = |tasks: &mut dyn Iterator<Item = &&Arc<Task>>| {
            let slots: BTreeSet<u64> = tasks.map(|task| task.slot).collect();
            assert!(slots.iter().all(|slot| (1..=total_completions).contains(slot)), "{name}");
            u64::try_from(slots.len()).expect("few")
        };
        let open = slots(&mut wanted.iter().filter(|task| task.occupies()));
        assert!(open <= max_concurrent, "{name}: {open} of {max_concurrent} at once");
        let filled = slots(&mut wanted.iter());
        let ends = |task: &&&Arc<Task>| task.status.state == TaskState::Complete;
        let done = slots(&mut wanted.iter().filter(ends));
        let idle = open < max_concurrent && filled < total_completions && done == filled;
        let waits = view.tasks_of_service(&service.id).any(|task| task.occupies());
        assert!(!idle || waits, "{name}: nothing runs, and {done} have completed");
    }
}

/// Tasks that run come to an end, some of them well.
fn end(tx: &mut Tx, now: Timestamp, mut seed: u64) {
    let tasks: Vec<Arc<Task>> = tx.tasks().cloned().collect();
    for task in tasks.iter().filter(|task| task.status.state == TaskState::Running) {
        seed = seed.rotate_left(2);
        let next = match seed & 3 {
            0 => continue,
            1 => TaskState::Failed,
            _ => TaskState::Complete,
        };
        tx.edit_task(&task.id, |task| {
            task.status.state = next;
            task.status.since = now;
        });
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 200,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// Whatever fails and however often it is forced: never more slots run at once than may, also
    /// with those of the iteration before that are stopping, and in the end all have completed.
    #[test]
    fn a_job_completes_and_never_runs_more_at_once_than_it_may(
        (total, most, delay) in (0..8u64, 1..4u64, 0..4u64),
        forced in prop::collection::vec(prop::bool::weighted(0.1), 30..31),
        seeds in prop::collection::vec(any::<u64>(), 90..91),
    ) {
        let mut world = World::with_nodes(3);
        let mut service = named("job");
        service.spec.mode =
            ServiceMode::ReplicatedJob { max_concurrent: most, total_completions: total };
        service.spec.task.restart.condition = RestartCondition::OnFailure;
        service.spec.task.restart.delay = std::time::Duration::from_secs(delay);
        run_anew(&mut service, world.now);
        world.write(|tx, _| tx.put_service(service));
        let forced = forced.into_iter().chain(std::iter::repeat(false));
        for (seed, forced) in seeds.into_iter().zip(forced) {
            if forced {
                let now = world.now;
                world.write(|tx, _| tx.edit_service(&"job".into(), |job| run_anew(job, now)));
            }
            world.plan();
            let placed = world.view.tasks().filter(|task| task.is_placed());
            let slots: BTreeSet<u64> = placed.map(|task| task.slot).collect();
            prop_assert!(u64::try_from(slots.len()).expect("few") <= most, "{slots:?}");
            world.write(|tx, now| some_healthy(tx, now, seed | seed >> 32));
            world.write(|tx, now| end(tx, now, seed));
            world.take(Step::Wait { seconds: 2 });
        }
        world.plan();
        let done = world.view.tasks().filter(|task| task.status.state == TaskState::Complete);
        let done: BTreeSet<u64> = done.filter(|task| task.is_wanted()).map(|it| it.slot).collect();
        prop_assert_eq!(done, (1..=total).collect::<BTreeSet<u64>>());
    }
}
