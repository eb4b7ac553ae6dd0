//! Nodes that are drained with pace.

use crate::steps::Step;
use crate::world::{World, healthy, named, some_healthy, web};
use proptest::prelude::*;
use store::View;
use types::{Availability, NodeId, REBALANCE_LABEL, REBALANCE_ON, Service, ServiceMode, Task};

fn node(node: u8, availability: Availability) -> Step {
    Step::Node { node, down: false, availability, ssd: true, paced: true }
}

/// A service that runs everywhere.
fn global(name: &str) -> Service {
    let mut service = named(name);
    service.spec.mode = ServiceMode::Global;
    service
}

fn serving(view: &View, service: &str) -> usize {
    view.tasks_of_service(&service.into()).filter(|task| task.serves()).count()
}

/// The tasks of a service that are on a node.
fn on<'a>(view: &'a View, node: &'a NodeId, service: &str) -> impl Iterator<Item = &'a Task> {
    let service = service.into();
    let tasks = view.tasks_of_node(node).map(AsRef::as_ref);
    tasks.filter(move |task: &&Task| task.service == service && task.is_placed())
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 60,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// Nodes take their time, but nothing fails: users lose no more tasks than an update may take,
    /// what is to be everywhere goes last, and in the end the nodes are empty.
    #[test]
    fn a_paced_drain_takes_down_no_more_than_an_update_and_ends(
        (replicas, parallelism, delay) in (1..8usize, 1..4usize, 0..4u64),
        start_first in any::<bool>(),
        drained in 1..3u8,
        seeds in prop::collection::vec(any::<u64>(), 80..81),
    ) {
        let mut world = World::new();
        for number in 0..3 {
            world.take(node(number, Availability::Active));
        }
        world.write(|tx, _| {
            tx.put_service(web((replicas, parallelism, delay), start_first));
            tx.put_service(global("agent"));
        });
        world.plan();
        world.write(healthy);
        world.plan();
        for number in 0..drained {
            world.take(node(number, Availability::Drain));
        }
        let nodes: Vec<NodeId> = (0..drained).map(|it| format!("n{it}").as_str().into()).collect();
        for seed in seeds {
            world.plan();
            let serving = serving(&world.view, "web");
            let lost = if start_first { 0 } else { parallelism };
            prop_assert!(replicas <= serving + lost, "{serving} of {replicas} serve");
            for node in &nodes {
                let has_web = on(&world.view, node, "web").next().is_some();
                let agents = on(&world.view, node, "agent").filter(|it| it.is_wanted()).count();
                prop_assert_eq!(agents, usize::from(has_web), "agents on {}", node);
            }
            world.write(|tx, now| some_healthy(tx, now, seed));
            world.take(Step::Wait { seconds: 2 });
        }
        world.write(healthy);
        world.plan();
        prop_assert_eq!(serving(&world.view, "web"), replicas);
        for node in &nodes {
            prop_assert_eq!(on(&world.view, node, "web").count(), 0, "of {} are left", node);
            prop_assert_eq!(on(&world.view, node, "agent").count(), 0, "agents of {}", node);
        }
        // Whoever is taken back in the middle of it has one task in each slot.
        world.take(node(2, Availability::Drain));
        world.take(node(0, Availability::Active));
        world.plan();
        world.take(node(2, Availability::Active));
        world.plan();
        let tasks = world.view.tasks();
        let wanted = tasks.filter(|it| it.is_wanted() && it.service == "web".into());
        prop_assert_eq!(wanted.count(), replicas);
    }

    /// Nodes come one by one: no more than one task is away, and in the end the spread is even.
    #[test]
    fn a_service_that_is_rebalanced_is_spread_evenly_with_one_task_on_its_way(
        (replicas, delay) in (1..9usize, 0..3u64),
        start_first in any::<bool>(),
        seeds in prop::collection::vec(any::<u64>(), 60..61),
    ) {
        let mut world = World::new();
        world.take(node(0, Availability::Active));
        let mut service = web((replicas, 2, delay), start_first);
        service.spec.labels.insert(REBALANCE_LABEL.to_owned(), REBALANCE_ON.to_owned());
        world.write(|tx, _| tx.put_service(service));
        world.plan();
        world.write(healthy);
        world.plan();
        for (step, seed) in seeds.into_iter().enumerate() {
            if let Some(number) = [0, 5, 6].iter().position(|at| *at == step) {
                world.take(node(u8::try_from(number).expect("few") + 1, Availability::Active));
            }
            world.plan();
            let serving = serving(&world.view, "web");
            let lost = usize::from(!start_first);
            prop_assert!(replicas <= serving + lost, "{serving} of {replicas} serve");
            world.write(|tx, now| some_healthy(tx, now, seed));
            world.take(Step::Wait { seconds: 2 });
        }
        for _ in 0..20 {
            world.plan();
            world.write(healthy);
            world.take(Step::Wait { seconds: 3 });
        }
        world.plan();
        let on = |it: u8| on(&world.view, &format!("n{it}").as_str().into(), "web").count();
        let counts: Vec<usize> = (0..4).map(on).collect();
        let (least, most) = (counts.iter().min(), counts.iter().max());
        prop_assert!(most.zip(least).is_some_and(|(most, least)| most - least < 2), "{counts:?}");
        prop_assert_eq!(counts.iter().sum::<usize>(), replicas);
    }
}
