//! What holds whatever users, nodes and time do.

mod beside;
mod drain;
mod jobs;
mod steps;
mod sticky;
#[path = "../support/mod.rs"]
mod support;
mod world;

use planner::Planner;
use proptest::prelude::*;
use std::sync::Arc;
use steps::{Step, step};
use types::{FailureAction, RestartCondition, Service, ServiceMode, Task, UpdateState};
use world::{World, healthy, some_healthy, web};

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 200,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// Plans keep the rules and are final, slots and addresses are unique, states only rise.
    #[test]
    fn a_plan_is_final_and_keeps_the_rules(steps in prop::collection::vec(step(), 1..60)) {
        let mut world = World::new();
        for step in steps {
            world.take(step);
            world.plan();
        }
    }

    /// A few tasks at a time: it comes to an end, each plan is what one makes who knows nothing of
    /// before, and none is large. Plans that were lost or taken apart do no harm.
    #[test]
    fn a_bounded_plan_goes_on_until_nothing_changes(
        steps in prop::collection::vec((step(), any::<u64>()), 1..40),
        tasks_max in 1..6usize,
    ) {
        let mut world = World::new();
        world.planner = Planner::with_tasks_max(tasks_max);
        world.tasks_max = tasks_max;
        for (step, seed) in steps {
            world.take(step);
            world.plan_by_parts(seed);
        }
    }

    /// Whatever happened before: with nodes that work and time that passes, every service that can
    /// run runs, on the present spec.
    #[test]
    fn every_service_settles(steps in prop::collection::vec(step(), 1..40)) {
        let mut world = World::new();
        for step in steps {
            world.take(step);
            world.plan();
        }
        world.ready_nodes(4);
        for network in 0..3 {
            world.take(Step::Network { network, prefix: 27 });
        }
        // Users look at what did not work, and try something that does.
        let services: Vec<Arc<Service>> = world.view.services().cloned().collect();
        for service in &services {
            world.write(|tx, now| tx.edit_service(&service.id, |service| {
                service.update = None;
                if service.spec.mode.is_job() {
                    jobs::run_anew(service, now);
                }
                service.spec.endpoint.ports.clear();
                service.spec.task.networks.clear();
                service.spec.task.resources.reserve_memory = 0;
                service.spec.task.generic.clear();
                let is_about_nodes = |text: &String| types::Affinity::parse(text).is_none();
                service.spec.task.placement.constraints.retain(is_about_nodes);
                service.spec.task.placement.max_replicas_per_node = 0;
                service.spec.task.restart.condition = RestartCondition::Any;
                service.spec.task.restart.max_attempts = 0;
                service.spec.update.failure_action = FailureAction::Continue;
            }));
        }
        for _ in 0..200 {
            world.plan();
            world.write(healthy);
            world.take(Step::Wait { seconds: 3 });
        }
        world.plan();
        for service in world.view.services() {
            let tasks = world.view.tasks_of_service(&service.id);
            let running: Vec<&Arc<Task>> = tasks.filter(|task| task.serves()).collect();
            let wanted = match service.spec.mode {
                ServiceMode::Replicated { replicas } => usize::try_from(replicas).expect("few"),
                ServiceMode::ReplicatedJob { max_concurrent, total_completions } => {
                    usize::try_from(max_concurrent.min(total_completions)).expect("few")
                }
                ServiceMode::Global | ServiceMode::GlobalJob => 4,
            };
            prop_assert_eq!(running.len(), wanted, "tasks of {}", service.spec.name);
            for task in running {
                let (task, service) = (&task.spec.container, &service.spec.task.container);
                prop_assert_eq!(&task.image, &service.image);
            }
        }
    }

    /// Nodes take their time, but nothing fails: users lose no more tasks than they allowed.
    #[test]
    fn an_update_takes_down_no_more_slots_than_allowed(
        (replicas, parallelism, delay) in (1..8usize, 1..4usize, 0..4u64),
        start_first in any::<bool>(),
        seeds in prop::collection::vec(any::<u64>(), 60..61),
    ) {
        let mut world = World::with_nodes(3);
        let service = web((replicas, parallelism, delay), start_first);
        world.write(|tx, _| tx.put_service(service));
        world.plan();
        world.write(healthy);
        world.plan();
        world.write(|tx, _| tx.edit_service(&"web".into(), |service| {
            service.spec.task.container.image = "two".to_owned();
        }));
        for seed in seeds {
            world.plan();
            let serving = world.view.tasks().filter(|task| task.serves()).count();
            let lost = if start_first { 0 } else { parallelism };
            prop_assert!(replicas <= serving + lost, "{serving} of {replicas} serve");
            world.write(|tx, now| some_healthy(tx, now, seed));
            world.take(Step::Wait { seconds: 2 });
        }
        let update = world.view.service(&"web".into()).and_then(|service| service.update.clone());
        prop_assert_eq!(update.map(|update| update.state), Some(UpdateState::Completed));
    }
}
