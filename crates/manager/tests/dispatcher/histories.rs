//! Whatever happens in whatever order: what nodes were sent leads to exactly what a manager that
//! starts anew would send them, and nobody is led to a task that may be stopped.

use crate::stage::{MOMENT, PERIOD, Stage};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use types::{
    Attachment, DesiredState, Network, NetworkAttachment, NodeState, NodeStatus, PublishedPort,
    Service, Task, TaskId, TaskState, TaskStatus, Vip,
};
use wire::Assignments;

const NODES: [&str; 4] = ["n1", "n2", "n3", "n4"];
const NETWORKS: [&str; 2] = ["front", "back"];

/// Something that happens.
#[derive(Clone, Debug)]
enum Event {
    /// A task is, or becomes: where, on which networks, in the mesh or not, and how far it is.
    Task {
        task: u8,
        node: usize,
        networks: u8,
        in_mesh: bool,
        state: usize,
        stops: bool,
    },
    Unhealthy {
        task: u8,
    },
    Forget {
        task: u8,
    },
    Service {
        service: u8,
        port: u16,
        networks: u8,
    },
    RemoveService {
        service: u8,
    },
    Network {
        network: usize,
        is_there: bool,
    },
    /// The store says so of a node, whoever wrote it.
    Node {
        node: usize,
        state: NodeState,
    },
    RemoveNode {
        node: usize,
    },
    Open {
        node: usize,
    },
    Close {
        node: usize,
    },
    Acknowledge {
        node: usize,
        count: usize,
    },
    Pass {
        millis: u64,
    },
    Restart,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let node = || 0..NODES.len();
    let task = (0..8_u8, node(), 0..4_u8, any::<bool>(), 1..TaskState::ALL.len(), any::<bool>())
        .prop_map(|(task, node, networks, in_mesh, state, stops)| Event::Task {
            task,
            node,
            networks,
            in_mesh,
            state,
            stops,
        });
    let running =
        (0..8_u8, node(), any::<bool>(), any::<bool>()).prop_map(|(task, node, in_mesh, stops)| {
            Event::Task { task, node, networks: 3, in_mesh, state: 7, stops }
        });
    let states = prop_oneof![Just(NodeState::Ready), Just(NodeState::Down)];
    let service = (0..3_u8, 0..3_u16, 0..4_u8)
        .prop_map(|(service, port, networks)| Event::Service { service, port, networks });
    let event = prop_oneof![
        4 => task,
        4 => running,
        1 => (0..8_u8).prop_map(|task| Event::Unhealthy { task }),
        1 => (0..8_u8).prop_map(|task| Event::Forget { task }),
        2 => service,
        1 => (0..3_u8).prop_map(|service| Event::RemoveService { service }),
        1 => (0..2_usize, any::<bool>())
            .prop_map(|(network, is_there)| Event::Network { network, is_there }),
        1 => (node(), states).prop_map(|(node, state)| Event::Node { node, state }),
        1 => node().prop_map(|node| Event::RemoveNode { node }),
        4 => node().prop_map(|node| Event::Open { node }),
        1 => node().prop_map(|node| Event::Close { node }),
        10 => (node(), 1..4_usize).prop_map(|(node, count)| Event::Acknowledge { node, count }),
        3 => prop_oneof![1..100_u64, 1000..20_000_u64].prop_map(|millis| Event::Pass { millis }),
        1 => Just(Event::Restart),
    ];
    prop::collection::vec(event, 0..120)
}

fn networks(bits: u8) -> impl Iterator<Item = &'static str> {
    NETWORKS.into_iter().zip(0..).filter_map(move |(id, bit)| (bits >> bit & 1 == 1).then_some(id))
}

fn new_task(id: &str, node: &str, bits: u8, in_mesh: bool) -> Task {
    let number: u8 = id[1..].parse().unwrap();
    let attachment = |network: &str| Attachment {
        network: network.into(),
        addresses: [10, 0, u8::from(network == "back"), number].into(),
        aliases: Vec::new(),
    };
    Task {
        id: id.into(),
        node: Some(node.into()),
        service: format!("s{}", number % 3).as_str().into(),
        attachments: networks(bits).map(attachment).collect(),
        ingress_addresses: if in_mesh {
            [10, 255, 1, number].into()
        } else {
            types::Addresses::default()
        },
        ..Task::default()
    }
}

fn service(number: u8, port: u16, bits: u8) -> Service {
    let mut service = Service { id: format!("s{number}").as_str().into(), ..Service::default() };
    service.spec.task.networks = networks(bits)
        .map(|target| NetworkAttachment { target: target.into(), aliases: Vec::new() })
        .collect();
    // No two services have one.
    let published = if port == 0 { 0 } else { u16::from(number) * 10 + port };
    service.ports = vec![PublishedPort { published, target: 80, ..PublishedPort::default() }];
    service.vips = vec![Vip { network: "front".into(), addresses: [10, 0, 9, number].into() }];
    service
}

fn happen(stage: &mut Stage, event: &Event) {
    let id = |task: &u8| TaskId::from(format!("t{task}"));
    match event {
        // Nothing is ever made again.
        Event::Task { task, .. } if stage.forgotten.contains(&id(task)) => {}
        Event::Task { task: number, node, networks, in_mesh, state, stops } => {
            let (reached, node) = (TaskState::ALL[*state], NODES[*node]);
            let known = stage.view.task(&id(number)).map(|task| Task::clone(task));
            // A task stays what and where it is, and only gets older.
            let new = || new_task(id(number).as_str(), node, *networks, *in_mesh);
            let mut task = known.unwrap_or_else(new);
            if task.status.state <= reached {
                task.status.state = reached;
            }
            if *stops {
                task.desired = DesiredState::Shutdown;
            }
            stage.change(|tx| tx.put_task(task));
        }
        Event::Unhealthy { task } => {
            stage.change(|tx| tx.edit_task(&id(task), |task| task.status.unhealthy = true));
        }
        Event::Forget { task } => {
            stage.change(|tx| tx.remove_task(&id(task)));
            stage.forgotten.insert(id(task));
        }
        Event::Service { service, port, networks } => {
            stage.change(|tx| tx.put_service(self::service(*service, *port, *networks)));
        }
        Event::RemoveService { service } => {
            stage.change(|tx| tx.remove_service(&format!("s{service}").as_str().into()));
        }
        Event::Network { network, is_there } => {
            let id = NETWORKS[*network].into();
            stage.change(|tx| {
                if *is_there {
                    tx.put_network(Network { id, vni: 4097, ..Network::default() });
                } else {
                    tx.remove_network(&id);
                }
            });
        }
        Event::Node { node, state } => {
            let id = NODES[*node].into();
            stage.change(|tx| {
                tx.edit_node(&id, |node| {
                    node.status = NodeStatus { state: *state, ..node.status.clone() };
                });
            });
        }
        Event::RemoveNode { node } => {
            stage.change(|tx| tx.remove_node(&NODES[*node].into()));
        }
        Event::Open { node } => drop(stage.open(NODES[*node])),
        Event::Close { node } if stage.nodes.contains_key(&NODES[*node].into()) => {
            stage.close(NODES[*node]);
        }
        Event::Acknowledge { node, count } if stage.nodes.contains_key(&NODES[*node].into()) => {
            stage.acknowledge_some(NODES[*node], *count);
        }
        Event::Close { .. } | Event::Acknowledge { .. } => {}
        Event::Pass { millis } => stage.pass_with_beats(Duration::from_millis(*millis)),
        Event::Restart => stage.restart(),
    }
}

/// What a node has to do: what it reported itself comes back and is no news to it, and what the
/// store knows besides is none of its business.
fn to_do(has: &Assignments) -> Assignments {
    let mut has = Assignments { version: 0, withdrawn: BTreeSet::new(), ..has.clone() };
    for task in has.tasks.values_mut() {
        let given_up = task.status.state == TaskState::Orphaned;
        task.status = TaskStatus::default();
        task.meta = types::Meta::default();
        if given_up {
            task.status.state = TaskState::Orphaned;
        }
    }
    has
}

/// What a manager that starts anew would say to those who have a session.
fn afresh(stage: &Stage) -> BTreeMap<&'static str, Assignments> {
    let mut fresh = Stage::new();
    fresh.writes = false;
    fresh.view = stage.view.clone();
    fresh.now = stage.now;
    fresh.nodes.clone_from(&stage.nodes);
    fresh.restart();
    let there = NODES
        .into_iter()
        .filter(|node| stage.nodes.get(&(*node).into()).is_some_and(|node| node.session.is_some()));
    there
        .map(|node| {
            fresh.open(node);
            (node, fresh.node(node).has.clone())
        })
        .collect()
}

/// Who may lead traffic to a task, by what its kernel holds: it has a container on one of the
/// task's networks, or carries the mesh.
fn leads_to(stage: &Stage, node: &str, task: &Task) -> bool {
    let applied = &stage.node(node).applied;
    let there = |id: &TaskId| stage.view.task(id).is_some_and(|task| task.occupies());
    let by_network = task.attachments.iter().any(|attachment| {
        let on_it = |other: &Task| {
            there(&other.id) && other.attachments.iter().any(|it| it.network == attachment.network)
        };
        let network = applied.knowledge.networks.get(&attachment.network);
        let endpoint = network.and_then(|network| network.endpoints.get(&task.id));
        endpoint.is_some_and(|endpoint| endpoint.serving) && applied.tasks.values().any(on_it)
    });
    let by_mesh = applied.knowledge.mesh.tasks.get(&task.id).is_some_and(|task| task.serving);
    by_network || by_mesh
}

/// Nobody waits for a node that is down or removed, nor for one that has come back and has not
/// applied anything yet: it is told what was withdrawn meanwhile.
fn is_ready(stage: &Stage, node: &str) -> bool {
    stage.view.node(&node.into()).is_some_and(|it| it.status.state == NodeState::Ready)
}

/// Notes for each task that has ceased who was not waited for at some time since.
fn excuse(stage: &Stage, excused: &mut BTreeSet<(TaskId, &'static str)>, absent: &[Duration; 4]) {
    let ceased = stage.view.tasks().filter(|task| task.is_stopping() && task.occupies());
    for task in ceased {
        let away = NODES.into_iter().zip(absent).filter(|(_, absent)| **absent >= PERIOD * 2);
        excused.extend(away.map(|(node, _)| (task.id.clone(), node)));
    }
}

/// Checks what nodes were told since this was checked last. `absent`: how long nodes have had no
/// session.
fn check_withdrawn(
    stage: &mut Stage,
    known: &mut BTreeSet<TaskId>,
    excused: &BTreeSet<(TaskId, &'static str)>,
    absent: &[Duration; 4],
) {
    let told: BTreeSet<TaskId> =
        stage.nodes.values_mut().flat_map(|node| std::mem::take(&mut node.withdrawn)).collect();
    for id in told.into_iter().filter(|id| known.insert(id.clone())) {
        let task = Task::clone(stage.view.task(&id).unwrap());
        for (node, absent) in NODES.into_iter().zip(absent) {
            if excused.contains(&(id.clone(), node)) {
                continue;
            }
            if is_ready(stage, node)
                && *absent < PERIOD * 2
                && stage.nodes.contains_key(&node.into())
            {
                assert!(!leads_to(stage, node, &task), "{node} leads traffic to {id}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn what_nodes_were_sent_is_what_a_manager_that_starts_anew_would_send(events in events()) {
        let mut stage = Stage::new();
        let (mut known, mut absent) = (BTreeSet::new(), [Duration::ZERO; 4]);
        let mut excused = BTreeSet::new();
        for event in &events {
            let before = stage.now.uptime;
            happen(&mut stage, event);
            for (node, absent) in NODES.into_iter().zip(&mut absent) {
                if !is_ready(&stage, node) {
                    *absent = Duration::MAX;
                    continue;
                }
                let node = stage.nodes.get(&node.into());
                let is_there = node.is_none_or(|node| {
                    // Who was not waited for is again once it has applied something.
                    node.session.is_some() && (*absent < PERIOD * 2 || node.has_applied)
                });
                let passed = stage.now.uptime.since(before);
                *absent = if is_there { Duration::ZERO } else { absent.saturating_add(passed) };
            }
            if matches!(event, Event::Restart) {
                // Nobody remembers what was withdrawn before, nor who was away.
                known.clear();
                for absent in absent.iter_mut().filter(|absent| **absent < Duration::MAX) {
                    *absent = Duration::ZERO;
                }
                excuse(&stage, &mut excused, &absent);
                continue;
            }
            excuse(&stage, &mut excused, &absent);
            check_withdrawn(&mut stage, &mut known, &excused, &absent);
            for node in stage.nodes.values() {
                prop_assert!(node.behind() <= 64, "{} messages are under way", node.behind());
            }
        }
        stage.pass(MOMENT);
        stage.settle();
        for (node, fresh) in afresh(&stage) {
            prop_assert_eq!(to_do(&stage.node(node).has), to_do(&fresh), "{}", node);
        }
    }
}
