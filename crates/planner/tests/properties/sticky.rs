//! Services whose slots are sticky.

use crate::steps::Step;
use crate::world::{World, healthy, some_healthy, web};
use proptest::prelude::*;
use std::collections::BTreeMap;
use types::{Availability, NodeId, STICKY_LABEL, ServiceMode, TaskState};

/// What happens between two plans.
#[derive(Clone, Debug)]
enum Event {
    Node(u8, bool, Availability),
    Scale(u64),
    /// Some tasks fail.
    Fail(u64),
    Progress(u64),
}

fn event() -> impl Strategy<Value = Event> {
    let availability = prop_oneof![
        3 => Just(Availability::Active),
        1 => Just(Availability::Pause),
        1 => Just(Availability::Drain),
    ];
    prop_oneof![
        (0..4u8, prop::bool::weighted(0.3), availability)
            .prop_map(|(node, down, availability)| Event::Node(node, down, availability)),
        (0..6u64).prop_map(Event::Scale),
        any::<u64>().prop_map(Event::Fail),
        any::<u64>().prop_map(Event::Progress),
    ]
}

fn node(node: u8, down: bool, availability: Availability) -> Step {
    Step::Node { node, down, availability, ssd: true, paced: false }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 100,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// Whatever fails, goes down, is drained or scaled: a slot is on one node as long as that exists,
    /// and when all nodes are well, every slot serves.
    #[test]
    fn a_sticky_slot_is_never_on_another_node_than_its_first(
        replicas in 1..6usize,
        start_first in any::<bool>(),
        events in prop::collection::vec(event(), 1..60),
    ) {
        let mut world = World::new();
        for number in 0..4 {
            world.take(node(number, false, Availability::Active));
        }
        let mut service = web((replicas, 2, 0), start_first);
        service.spec.labels.insert(STICKY_LABEL.to_owned(), "on".to_owned());
        world.write(|tx, _| tx.put_service(service));
        let mut homes: BTreeMap<u64, NodeId> = BTreeMap::new();
        let mut wanted = replicas;
        for event in events {
            match event {
                Event::Node(number, down, availability) => {
                    world.take(node(number, down, availability));
                }
                Event::Scale(count) => {
                    wanted = usize::try_from(count).expect("few");
                    world.write(|tx, _| tx.edit_service(&"web".into(), |service| {
                        service.spec.mode = ServiceMode::Replicated { replicas: count };
                    }));
                }
                Event::Fail(seed) => world.write(|tx, now| {
                    let tasks: Vec<_> = tx.tasks().cloned().collect();
                    for (at, task) in tasks.iter().enumerate() {
                        let is_chosen = (seed >> (at % 64)) & 1 == 1;
                        if is_chosen && task.status.state == TaskState::Running {
                            tx.edit_task(&task.id, |task| {
                                task.status.state = TaskState::Failed;
                                task.status.since = now;
                            });
                        }
                    }
                }),
                Event::Progress(seed) => world.write(|tx, now| some_healthy(tx, now, seed)),
            }
            world.plan();
            for task in world.view.tasks_of_service(&"web".into()).filter(|it| it.is_placed()) {
                let placed = task.node.clone().expect("a node");
                let home = homes.entry(task.slot).or_insert_with(|| placed.clone());
                prop_assert_eq!(&placed, home, "slot {}", task.slot);
            }
            world.take(Step::Wait { seconds: 2 });
        }
        for number in 0..4 {
            world.take(node(number, false, Availability::Active));
        }
        for _ in 0..20 {
            world.plan();
            world.write(healthy);
            world.take(Step::Wait { seconds: 10 });
        }
        world.plan();
        let serving = world.view.tasks_of_service(&"web".into()).filter(|it| it.serves()).count();
        prop_assert_eq!(serving, wanted);
    }
}
