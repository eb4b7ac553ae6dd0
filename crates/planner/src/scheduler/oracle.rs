//! The straightforward form of the scheduler: every task looks at all nodes. It is what the one
//! with candidates is compared with.

use super::explain::{Lack, explain};
use super::filter::{Misfit, Requirements, fit, given};
use super::place::EXPLAINED;
use super::schedule;
use crate::Planning;
use crate::index::Index;
use crate::testing::{Count, NOW, read, seconds};
use proptest::prelude::*;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;
use store::View;
use types::{Node, NodeId, Task, TaskId, TaskState, Timestamp};

/// Where a task goes, or why it does not.
type Outcome = Result<NodeId, String>;

fn place_one_by_one(view: &View, now: Timestamp) -> BTreeMap<TaskId, Outcome> {
    let pending = |task: &&Arc<Task>| task.status.state == TaskState::Pending && task.is_wanted();
    let mut tasks: Vec<&Arc<Task>> = view.tasks().filter(pending).collect();
    tasks.sort_by(|a, b| (&a.service, a.slot, &a.id).cmp(&(&b.service, b.slot, &b.id)));
    // Those that name their node come first, and those of a service that ask for the same together.
    let (bound, mut tasks): (Vec<_>, Vec<_>) = tasks.into_iter().partition(|it| it.node.is_some());
    let mut whole = Index::default();
    whole.follow(view, now);
    let mut kinds: Vec<Requirements> = Vec::new();
    tasks.sort_by_cached_key(|task| {
        let known = kinds.iter().position(|kind| kind.are_of(task));
        let kind = known.unwrap_or_else(|| {
            kinds.push(Requirements::of((view, &whole), task));
            kinds.len() - 1
        });
        (task.service.clone(), kind)
    });
    let (mut view, mut outcomes) = (view.clone(), BTreeMap::new());
    let mut unplaced = Vec::new();
    let tasks: Vec<Arc<Task>> = bound.into_iter().chain(tasks).cloned().collect();
    for task in tasks {
        match place(&view, now, &task) {
            Ok(node) => {
                let mut tx = store::Tx::new(&view);
                let mut index = Index::default();
                index.follow(&view, now);
                let here: &Node = view.node(&node).expect("a node");
                let given = given(here, index.loads.on(&node, &task.service).load, &task);
                tx.edit_task(&task.id, |task| {
                    task.generic = given;
                    task.status.state = TaskState::Assigned;
                    task.node = Some(node.clone());
                });
                view = View::clone(&tx);
                outcomes.insert(task.id.clone(), Ok(node));
            }
            Err(_) => unplaced.push(task),
        }
    }
    let mut index = Index::default();
    index.follow(&view, now);
    let mut alike: Vec<Requirements> = Vec::new();
    for task in unplaced {
        let asked = Requirements::of((&view, &index), &task);
        let misfits = place(&view, now, &task).expect_err("there is less than before");
        let lacks = misfits.iter().map(|(id, misfit)| {
            let node: &Node = view.node(id).expect("a node");
            Lack { node, carried: index.loads.on(id, &task.service), misfit: *misfit }
        });
        let why = explain(&asked, lacks.collect());
        let others = alike.iter().filter(|it| task.node.is_none() && it.are_of(&task)).count();
        outcomes
            .insert(task.id.clone(), Err(if others < EXPLAINED { why.whole } else { why.short }));
        if task.node.is_none() {
            alike.push(asked);
        }
    }
    outcomes
}

fn place(view: &View, now: Timestamp, task: &Task) -> Result<NodeId, Vec<(NodeId, Misfit)>> {
    // Looks at all there is, and remembers nothing.
    let mut index = Index::default();
    index.follow(view, now);
    let carried = |node: &Node| index.loads.on(&node.id, &task.service);
    let (mut fitting, mut misfits) = (Vec::new(), Vec::new());
    for node in view.nodes().filter(|it| task.node.as_ref().is_none_or(|node| *node == it.id)) {
        match fit(node, carried(node), &Requirements::of((view, &index), task)) {
            Ok(()) => fitting.push(node),
            Err(misfit) => misfits.push((node.id.clone(), misfit)),
        }
    }
    for preference in &task.spec.placement.preferences {
        let name = preference.spread.strip_prefix("node.labels.").expect("a label of nodes");
        let mut groups: BTreeMap<&str, Vec<&Arc<Node>>> = BTreeMap::new();
        for node in fitting {
            let value = node.spec.labels.get(name).map_or("", String::as_str);
            groups.entry(value).or_default().push(node);
        }
        let rank = |group: &Vec<&Arc<Node>>| {
            let tasks: usize = group.iter().map(|node| carried(node).count).sum();
            (tasks, Reverse(group.len()))
        };
        fitting = groups.into_values().min_by_key(rank).unwrap_or_default();
    }
    let failed = |node: &Node| {
        let tasks = view.tasks_of_node(&node.id).filter(|it| it.service == task.service);
        let failed = tasks.filter(|it| it.status.state.is_failure());
        failed.filter(|it| now.since(it.status.since) < Duration::from_mins(5)).count()
    };
    let chosen = fitting.into_iter().min_by_key(|node| {
        let failures = Some(failed(node)).filter(|failures| *failures >= 5).unwrap_or(0);
        (failures, carried(node).count, carried(node).load.tasks, &node.id)
    });
    chosen.map(|node| node.id.clone()).ok_or(misfits)
}

/// A cluster as text: nodes, services with all that decides where tasks go, and tasks that run,
/// failed or wait.
fn case() -> impl Strategy<Value = String> {
    let node = (0..4u8, 0..3u8, 2..9u8, 0..8u8);
    let service = (0..5u8, 0..4u8, 0..3u8, 0..4u8, any::<bool>());
    let task = (0..3usize, 1..6u8, 0..8u8, 0..6usize, 0..4u8);
    (
        prop::collection::vec(node, 0..6),
        prop::collection::vec(service, 3..4),
        prop::collection::vec(task, 0..60),
    )
        .prop_map(|(nodes, services, tasks)| {
            let mut text = String::new();
            for (index, (zone, rack, memory, kind)) in nodes.iter().enumerate() {
                let state = ["pause", "down", "ingress=none"].get(usize::from(*kind)).unwrap_or(&"");
                let zone = if *zone == 0 { String::new() } else { format!("zone={zone}") };
                let gpus = ["", "generic=gpu=a,gpu=b,seat=3", "generic=gpu=2"][usize::from(*rack)];
                writeln!(text, "node n{index} {zone} rack={rack} memory={memory} {gpus} {state}").unwrap();
            }
            for (index, (memory, spread, max, kind, mesh)) in services.iter().enumerate() {
                let spread = ["", "spread=node.labels.zone", "spread=node.labels.rack",
                    "spread=node.labels.zone,node.labels.rack"][usize::from(*spread)];
                let port = if *mesh { "" } else { "has-ports=host:80:80" };
                let generic = if index == 0 { "generic=gpu=1" } else { "" };
                let constraint = if *kind == 0 { "constraint=node.labels.zone!=2" } else { "" };
                writeln!(
                    text,
                    "service s{index} memory={memory} max-per-node={max} {spread} {port} {constraint} {generic}"
                )
                .unwrap();
            }
            for (service, slot, state, node, other) in tasks {
                let here = format!("n{node}");
                let rest = match (state, other) {
                    (0..2, _) => format!("running {here}"),
                    (2, _) => format!("failed {here} since=9{other} desired=shutdown"),
                    (3, _) => format!("failed {here} since=-300"),
                    (4, 0) if node < nodes.len() => format!("pending {here}"),
                    (5, 0) => "pending - mesh=10.255.1.1".to_owned(),
                    (6, 0) => "pending - constraint=node.labels.rack==1".to_owned(),
                    _ => "pending -".to_owned(),
                };
                writeln!(text, "task s{service}.{slot} {rest}").unwrap();
            }
            text
        })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// The same places, and the same reasons where there is none.
    #[test]
    fn candidates_are_what_a_look_at_all_nodes_finds(case in case()) {
        let (view, now) = (read(&case), seconds(NOW));
        let mut ids = Count(0);
        let mut planning = Planning::new(&view, (now, Timestamp::default()), &mut ids);
        planning.make_room(usize::MAX);
        let mut index = Index::default();
        index.follow(&view, now);
        schedule(&mut planning, &mut index, true);
        let expected = place_one_by_one(&view, now);
        let outcome = |id: &TaskId| {
            let task = planning.tx.task(id).expect("it is there");
            match task.status.state {
                TaskState::Assigned => Ok(task.node.clone().expect("a node")),
                _ => Err(task.status.error.clone()),
            }
        };
        let outcomes: BTreeMap<TaskId, Outcome> =
            expected.keys().map(|id| (id.clone(), outcome(id))).collect();
        prop_assert_eq!(outcomes, expected);
    }
}
