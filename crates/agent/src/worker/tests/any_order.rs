//! A worker among whatever may happen, in whatever order.

use super::*;
use proptest::prelude::*;

/// Something that happens in the world, by chance.
#[derive(Clone, Debug)]
enum Chance {
    Want(DesiredState),
    /// The operation under way ends, well or not.
    Finish(bool),
    Exit(i32),
    Health(bool),
    Wait(u8),
    Withdrawn,
}

fn chance() -> impl Strategy<Value = Chance> {
    prop_oneof![
        1 => prop_oneof![
            Just(DesiredState::Ready),
            Just(DesiredState::Running),
            Just(DesiredState::Shutdown),
            Just(DesiredState::Remove),
        ]
        .prop_map(Chance::Want),
        5 => proptest::bool::weighted(0.8).prop_map(Chance::Finish),
        1 => (0..3i32).prop_map(Chance::Exit),
        1 => any::<bool>().prop_map(Chance::Health),
        1 => (0..7u8).prop_map(Chance::Wait),
        1 => Just(Chance::Withdrawn),
    ]
}

/// Plays the world and asserts what must always hold.
struct World {
    worker: Worker,
    now: Now,
    desired: DesiredState,
    under_way: Option<Operation>,
    state: TaskState,
    with_health: bool,
}

impl World {
    fn send(&mut self, event: Event) {
        let effects = self.worker.handle(event, self.now);
        for effect in effects {
            match effect {
                Effect::Begin { operation, .. } => {
                    assert_eq!(self.under_way, None, "two operations at a time");
                    let starts = matches!(operation, Operation::Start { .. });
                    assert!(!starts || self.desired == DesiredState::Running, "started unwanted");
                    self.under_way = Some(operation);
                }
                Effect::Report { status, .. } => {
                    assert!(status.state >= self.state, "{:?} fell", self.state);
                    assert!(status.state == self.state || !self.state.is_terminal());
                    self.state = status.state;
                }
                Effect::Abort { .. } | Effect::Withdraw { .. } => {}
            }
        }
    }

    fn finish(&mut self, well: bool) {
        let Some(operation) = self.under_way.take() else { return };
        let outcome = match operation {
            _ if !well => Outcome::Failed("by chance".into()),
            Operation::Pull(_) => Outcome::Pulled,
            Operation::Create { .. } => Outcome::Created { container: "c".into() },
            Operation::Start { .. } => {
                Outcome::Started { pid: 7, has_health_check: self.with_health }
            }
            Operation::Refresh { .. } => Outcome::Refreshed,
            Operation::Drain { .. } => Outcome::Drained,
            Operation::Stop { .. } => Outcome::Stopped(Exit::default()),
            Operation::Remove { .. } => Outcome::Removed,
        };
        self.send(Event::Done { task: "t".into(), outcome });
    }

    fn want(&mut self, desired: DesiredState) {
        self.desired = self.desired.max(desired);
        let tasks = assigned(task("t", self.desired));
        self.send(Event::Whole { tasks, withdrawn: BTreeSet::new() });
    }

    fn happen(&mut self, chance: &Chance) {
        let id = TaskId::from("t");
        match *chance {
            Chance::Want(desired) => self.want(desired),
            Chance::Finish(well) => self.finish(well),
            Chance::Exit(code) => {
                // Only what was started can end.
                if TaskState::Starting <= self.state {
                    let exit = Exit { code, error: String::new() };
                    self.send(Event::Exited { task: id, exit });
                }
            }
            Chance::Health(healthy) => self.send(Event::Health { task: id, healthy }),
            Chance::Wait(seconds) => {
                self.now.uptime += Duration::from_secs(seconds.into());
                self.send(Event::Tick);
            }
            Chance::Withdrawn => self.send(Event::Changed {
                tasks: Assigned::default(),
                removed: BTreeSet::new(),
                withdrawn: Some([id].into()),
            }),
        }
    }
}

proptest! {
    #[test]
    fn states_rise_one_operation_at_a_time_and_every_shutdown_ends(
        chances in proptest::collection::vec(chance(), 0..60),
        with_health in any::<bool>(),
        ends_well in any::<bool>(),
    ) {
        let mut world = World {
            worker: Worker::default(),
            now: Now::default(),
            desired: DesiredState::Ready,
            under_way: None,
            state: TaskState::New,
            with_health,
        };
        world.want(DesiredState::Ready);
        for chance in chances {
            world.happen(&chance);
        }
        world.want(DesiredState::Shutdown);
        // What cannot be stopped has not ended; it does as soon as stopping works.
        for round in 0..40 {
            world.happen(&Chance::Wait(6));
            world.finish(ends_well || round > 35);
        }
        prop_assert!(world.state.is_terminal(), "{:?}", world.state);
        // Nothing is left of it when the cluster forgets it and removal works.
        world.send(Event::Whole { tasks: Assigned::default(), withdrawn: BTreeSet::new() });
        for _ in 0..4 {
            world.happen(&Chance::Wait(6));
            world.finish(true);
        }
        prop_assert!(world.worker.is_empty());
    }
}

/// Anything that may be said of one of four tasks.
fn event() -> impl Strategy<Value = Event> {
    let id = || (0..4_u8).prop_map(|number| TaskId::from(format!("t{number}")));
    let desired = prop_oneof![
        Just(DesiredState::Ready),
        Just(DesiredState::Running),
        Just(DesiredState::Shutdown),
        Just(DesiredState::Remove),
    ];
    let tasks = proptest::collection::btree_map(id(), desired, 0..3).prop_map(|tasks| {
        let tasks = tasks.into_iter().map(|(id, desired)| (id.clone(), task(id.as_str(), desired)));
        tasks.collect::<Assigned>()
    });
    let ids = || proptest::collection::btree_set(id(), 0..3);
    let outcome = prop_oneof![
        2 => Just(Outcome::Pulled),
        2 => Just(Outcome::Created { container: "c".into() }),
        2 => any::<bool>().prop_map(|it| Outcome::Started { pid: 7, has_health_check: it }),
        1 => Just(Outcome::Drained),
        1 => Just(Outcome::Stopped(Exit::default())),
        1 => Just(Outcome::Removed),
        1 => Just(Outcome::Failed("by chance".into())),
    ];
    prop_oneof![
        1 => (tasks.clone(), ids()).prop_map(|(tasks, withdrawn)| Event::Whole { tasks, withdrawn }),
        3 => (tasks, ids(), proptest::option::of(ids())).prop_map(|(tasks, removed, withdrawn)| {
            Event::Changed { tasks, removed, withdrawn }
        }),
        8 => (id(), outcome).prop_map(|(task, outcome)| Event::Done { task, outcome }),
        1 => id().prop_map(|task| Event::Begun { task }),
        2 => id().prop_map(|task| Event::Exited { task, exit: Exit::default() }),
        1 => (id(), any::<bool>()).prop_map(|(task, healthy)| Event::Health { task, healthy }),
        1 => any::<bool>().prop_map(|told| Event::Leave { told }),
    ]
}

proptest! {
    #[test]
    fn what_changed_is_said(
        events in proptest::collection::vec(event(), 0..60),
    ) {
        let (mut worker, mut kept) = (Worker::default(), BTreeMap::new());
        let mut now = Now::default();
        for event in events {
            now.uptime += Duration::from_millis(700);
            worker.handle(event, now);
            for (id, entry) in worker.changed() {
                match entry {
                    Some(entry) => drop(kept.insert(id, entry)),
                    None => drop(kept.remove(&id)),
                }
            }
            prop_assert_eq!(&kept, &worker.entries());
        }
    }
}
