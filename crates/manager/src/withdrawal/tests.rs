use super::*;
use proptest::prelude::*;
use store::Tx;
use types::{Attachment, DesiredState, TaskState, Timestamp};

/// The same in its straightforward form: all tasks and all nodes are looked at each time.
#[derive(Default)]
struct Straightforward {
    ceased: BTreeMap<TaskId, (Version, Audience)>,
    withdrawn: BTreeSet<TaskId>,
}

impl Straightforward {
    fn observe(&mut self, view: &View) {
        let stopping = view.tasks().filter(|task| has_ceased(task));
        let stopping: BTreeMap<&TaskId, &Task> =
            stopping.map(|task| (&task.id, AsRef::as_ref(task))).collect();
        self.ceased.retain(|id, _| stopping.contains_key(id));
        for (id, task) in stopping {
            let cessation = || (view.version(), Self::audience(task, view));
            self.ceased.entry(id.clone()).or_insert_with(cessation);
        }
    }

    fn audience(task: &Task, view: &View) -> Audience {
        if !task.ingress_addresses.is_empty() {
            return Audience::All;
        }
        let networks = |task: &Task| -> BTreeSet<NetworkId> {
            task.attachments.iter().map(|it| it.network.clone()).collect()
        };
        let own = networks(task);
        let hosts =
            view.tasks().filter(|other| other.occupies() && !networks(other).is_disjoint(&own));
        Audience::Nodes(hosts.filter_map(|task| task.node.clone()).collect())
    }

    /// `nodes`: those that are waited for, and from which view on each lacks something.
    fn withdraw(&mut self, nodes: &BTreeMap<NodeId, Option<Version>>) {
        self.withdrawn.retain(|task| self.ceased.contains_key(task));
        for (task, (since, audience)) in &self.ceased {
            let mut audience = nodes.iter().filter(|(node, _)| audience.holds(node));
            if audience.all(|(_, lacks)| knows(*lacks, *since)) {
                self.withdrawn.insert(task.clone());
            }
        }
    }
}

/// Something that happens.
#[derive(Clone, Debug)]
enum Event {
    /// Some tasks are written in one view.
    Tasks(Vec<Written>),
    /// The node has applied all of the newest view but so much.
    Applied {
        node: u8,
        lacks: u64,
    },
    /// The node is waited for anew, and lacks everything, or so much.
    WaitFor {
        node: u8,
        lacks: Option<u64>,
    },
    WaitNoMore {
        node: u8,
    },
}

#[derive(Clone, Debug)]
struct Written {
    task: u8,
    node: u8,
    networks: u8,
    in_mesh: bool,
    runs: bool,
    stops: bool,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let written = (
        0..8_u8,
        0..4_u8,
        0..8_u8,
        prop::bool::weighted(0.2),
        prop::bool::weighted(0.8),
        any::<bool>(),
    )
        .prop_map(|(task, node, networks, in_mesh, runs, stops)| Written {
            task,
            node,
            networks,
            in_mesh,
            runs,
            stops,
        });
    let event = prop_oneof![
        3 => prop::collection::vec(written, 0..5).prop_map(Event::Tasks),
        5 => (0..4_u8, 0..4_u64).prop_map(|(node, lacks)| Event::Applied { node, lacks }),
        1 => (0..4_u8, prop::option::of(0..4_u64))
            .prop_map(|(node, lacks)| Event::WaitFor { node, lacks }),
        1 => (0..4_u8).prop_map(|node| Event::WaitNoMore { node }),
    ];
    prop::collection::vec(event, 0..80)
}

fn task(written: &Written) -> Task {
    let mut task = Task { id: format!("t{}", written.task).into(), ..Task::default() };
    task.node = Some(node(written.node));
    task.status.state = if written.runs { TaskState::Running } else { TaskState::Failed };
    task.desired = if written.stops { DesiredState::Shutdown } else { DesiredState::Running };
    task.ingress_addresses =
        if written.in_mesh { [10, 255, 0, 1].into() } else { types::Addresses::default() };
    let networks = (0..3).filter(|bit| written.networks >> bit & 1 == 1);
    task.attachments = networks.map(|network| attachment(&format!("net{network}"))).collect();
    task
}

fn node(number: u8) -> NodeId {
    format!("n{number}").into()
}

fn attachment(network: &str) -> Attachment {
    let addresses = [10, 0, 0, 1].into();
    Attachment { network: network.into(), addresses, aliases: Vec::new() }
}

/// Both forms, and what they are told.
#[derive(Default)]
struct Both {
    view: View,
    hosts: Hosts,
    nodes: BTreeMap<NodeId, Option<Version>>,
    quick: Withdrawal,
    slow: Straightforward,
    news: Vec<TaskId>,
}

impl Both {
    fn write(&mut self, tasks: Vec<Task>) {
        let before = self.view.clone();
        let mut tx = Tx::new(&before);
        let changed: BTreeSet<TaskId> = tasks.iter().map(|task| task.id.clone()).collect();
        for task in tasks {
            tx.put_task(task);
        }
        let version = Version(before.version().0 + 1);
        self.view.apply(&tx.finish(), version, Timestamp(1));
        for id in &changed {
            let (old, new) = (before.task(id), self.view.task(id));
            self.hosts.change(old.map(AsRef::as_ref), new.map(AsRef::as_ref));
        }
        // Of those that changed, everybody is told.
        for lacks in self.nodes.values_mut() {
            lacks.get_or_insert(version);
        }
        let nodes = &self.nodes;
        self.quick.observe(&self.view, &changed, &self.hosts, |node| nodes[node]);
        self.slow.observe(&self.view);
    }

    /// All but the newest `lacks` views.
    fn but(&self, lacks: u64) -> Option<Version> {
        let version = self.view.version().0;
        (lacks > 0).then_some(Version((version + 1).saturating_sub(lacks)))
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Tasks(written) => self.write(written.iter().map(task).collect()),
            Event::Applied { node: number, lacks } => {
                let (node, lacks) = (node(number), self.but(lacks));
                // An acknowledgement takes nothing back.
                let more = |before: &Option<Version>| {
                    before.is_some_and(|before| lacks.is_none_or(|lacks| before <= lacks))
                };
                if self.nodes.get(&node).is_some_and(more) {
                    self.quick.applied(&node, lacks);
                    self.nodes.insert(node, lacks);
                }
            }
            Event::WaitFor { node: number, lacks } => {
                let lacks = lacks.map_or(Some(Version(0)), |lacks| self.but(lacks));
                self.quick.wait_for(&node(number), lacks);
                self.nodes.insert(node(number), lacks);
            }
            Event::WaitNoMore { node: number } => {
                self.quick.wait_no_more(&node(number));
                self.nodes.remove(&node(number));
            }
        }
        self.slow.withdraw(&self.nodes);
        self.news.extend(self.quick.news());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn counting_who_is_missing_is_the_same_as_looking_at_everybody(events in events()) {
        let mut both = Both::default();
        for event in events {
            let before = both.quick.withdrawn.clone();
            both.happen(event);
            prop_assert_eq!(&both.quick.withdrawn, &both.slow.withdrawn);
            let pending = both.slow.ceased.keys().filter(|it| !both.slow.withdrawn.contains(*it));
            prop_assert!(both.quick.ceased.keys().eq(pending));
            let news: BTreeSet<TaskId> = both.news.drain(..).collect();
            let expected: BTreeSet<TaskId> =
                both.quick.withdrawn.difference(&before).cloned().collect();
            prop_assert!(expected.is_subset(&news), "{expected:?} {news:?}");
        }
        // Nothing is left over of what is over.
        let open: BTreeSet<Group> = both.quick.groups.keys().copied().collect();
        let used: BTreeSet<Group> = both.quick.ceased.values().copied().collect();
        prop_assert_eq!(&open, &used);
        for groups in both.quick.nodes.values() {
            prop_assert!(groups.iter().all(|group| open.contains(group)));
        }
    }
}

/// Running tasks on nodes with networks; the first one is then wanted shut down, in view 2. `lacks`
/// is what each node lacks by then; 9: nothing.
fn is_withdrawn(tasks: &[(&str, &str)], in_mesh: bool, lacks: &[(&str, u64)]) -> bool {
    let mut both = Both::default();
    let mut running: Vec<Task> = Vec::new();
    for (index, (node, network)) in tasks.iter().enumerate() {
        let mut task = Task { id: format!("t{index}").into(), ..Task::default() };
        task.node = Some((*node).into());
        task.status.state = TaskState::Running;
        task.attachments = vec![attachment(network)];
        task.ingress_addresses =
            if in_mesh { [10, 255, 0, 1].into() } else { types::Addresses::default() };
        running.push(task);
    }
    both.write(running.clone());
    for (node, lacks) in lacks {
        let lacks = Some(Version(*lacks)).filter(|lacks| lacks.0 < 9);
        both.nodes.insert((*node).into(), lacks);
        both.quick.wait_for(&(*node).into(), lacks);
    }
    running[0].desired = DesiredState::Shutdown;
    running.truncate(1);
    both.write(running);
    for (node, lacks) in lacks {
        let lacks = Some(Version(*lacks)).filter(|lacks| lacks.0 < 9);
        both.quick.applied(&(*node).into(), lacks);
    }
    both.quick.is_withdrawn(&"t0".into())
}

#[test]
fn a_task_behind_the_mesh_is_withdrawn_once_every_node_has_seen_it() {
    let tasks = [("a", "front")];
    assert!(!is_withdrawn(&tasks, true, &[("a", 9), ("b", 2)]));
    assert!(is_withdrawn(&tasks, true, &[("a", 9), ("b", 3)]));
    assert!(!is_withdrawn(&tasks, true, &[("a", 9), ("b", 0)]), "no session yet");
    assert!(is_withdrawn(&tasks, true, &[]), "nobody is there");
}

#[test]
fn only_nodes_on_its_networks_are_waited_for_without_the_mesh() {
    let tasks = [("a", "front"), ("b", "front"), ("c", "back")];
    assert!(is_withdrawn(&tasks, false, &[("a", 9), ("b", 9), ("c", 0), ("d", 0)]));
    assert!(!is_withdrawn(&tasks, false, &[("a", 9), ("b", 2), ("c", 9), ("d", 9)]));
}

#[test]
fn an_unhealthy_task_is_withdrawn_as_one_that_is_not_wanted() {
    let mut both = Both::default();
    let mut task =
        task(&Written { task: 0, node: 0, networks: 1, in_mesh: true, runs: true, stops: false });
    both.write(vec![task.clone()]);
    assert!(!both.quick.is_withdrawn(&"t0".into()));
    task.status.unhealthy = true;
    both.write(vec![task]);
    assert!(both.quick.is_withdrawn(&"t0".into()));
}
