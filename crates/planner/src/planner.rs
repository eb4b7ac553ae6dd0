//! The planner that remembers.

use crate::index::{Index, News};
use crate::{Plan, Planning, allocator, orchestrator, scheduler};
use std::collections::{BTreeMap, BTreeSet};
use store::View;
use types::{IdSource, ServiceId, Timestamp};

/// How many tasks one plan writes at most, twice: those that services make and end, and those that
/// wait for addresses and nodes. It is one entry of the log, and the cluster's writer waits for it.
pub const TASKS_MAX: usize = 2_000;

/// Plans for a cluster again and again, and looks only at what may have to change: it remembers
/// what it saw and made last, the deadlines and what waits for something.
///
/// It takes its own plan for made. Where that did not come to be, the next call finds what is
/// there instead, like any other change.
#[derive(Debug)]
pub struct Planner {
    index: Index,
    wakes: Wakes,
    /// Services that the last plan had no room for.
    rest: BTreeSet<ServiceId>,
    /// Whose turn it is first, where the last plan did not come to all: none waits for ever.
    turn: Option<ServiceId>,
    /// Says whether the last plan had no room for all that waited.
    is_cut: bool,
    tasks_max: usize,
    fair_from: Timestamp,
    has_begun: bool,
}

impl Default for Planner {
    fn default() -> Self {
        Self::with_tasks_max(TASKS_MAX)
    }
}

impl Planner {
    /// A planner that knows nothing yet, and writes so many tasks at most.
    pub fn with_tasks_max(tasks_max: usize) -> Self {
        let (index, wakes, rest, turn, is_cut, fair_from, has_begun) = Default::default();
        let tasks_max = tasks_max.max(1);
        Self { index, wakes, rest, turn, is_cut, tasks_max, fair_from, has_begun }
    }

    /// Another planner that knows nothing yet, and begins with the same service: what it plans is
    /// what this one plans, which tests hold.
    #[must_use]
    pub fn forgetful(&self) -> Self {
        let (turn, fair_from) = (self.turn.clone(), self.fair_from);
        Self { turn, fair_from, ..Self::with_tasks_max(self.tasks_max) }
    }

    /// Updates are not judged by what was before this time: the clock was set forward then, or this
    /// manager came back, and tasks had less time than it seems.
    pub fn judge_from(&mut self, fair_from: Timestamp) {
        self.fair_from = fair_from;
    }

    /// Decides what has to change for `view` to become what users want. What is too much for one
    /// plan is left for the next one, which is asked for at once.
    pub fn plan(&mut self, view: &View, now: Timestamp, ids: &mut dyn IdSource) -> Plan {
        let mut news = self.index.follow(view, now);
        news.look_at_all(std::mem::take(&mut self.rest));
        news.look_at_all(self.wakes.due(now));
        let was_cut = std::mem::take(&mut self.is_cut);
        news.addresses |= was_cut;
        news.nodes |= was_cut;
        // A manager that begins to lead looks once, also where there is no service.
        let has_begun = std::mem::replace(&mut self.has_begun, true);
        if news.is_empty() && has_begun {
            return Plan { wake: self.wakes.next(), ..Plan::default() };
        }
        news.look_at_all(self.index.unsettled.iter().cloned());
        if news.nodes {
            news.look_at_all(self.index.rebalanced.iter().cloned());
        }
        let mut planning = Planning::new(view, (now, self.fair_from), ids);
        let is_full = self.orchestrate(&mut planning, &news.services);
        planning.make_room(self.tasks_max);
        let mut services = news.services.clone();
        allocator::allocate(&mut planning, &mut self.index, (&mut news, &mut services));
        self.schedule(&mut planning, (&mut news, &mut services));
        for service in &services {
            orchestrator::update::watch(&mut planning, service, &self.index.slots);
            self.wakes.set(Step::Watch, service, planning.take_wake());
        }
        crate::forget_former_files(&mut planning.tx);
        self.index.follow(&planning.tx, now);
        self.is_cut = planning.is_cut();
        let wake = if is_full || self.is_cut { Some(now) } else { self.wakes.next() };
        Plan { changes: planning.finish(), wake }
    }

    /// Decides which tasks of services exist; says whether there was no room for more.
    fn orchestrate(&mut self, planning: &mut Planning<'_>, services: &BTreeSet<ServiceId>) -> bool {
        // A failed update may bring back the old spec; ports are given first because changed ports
        // may replace tasks; tasks that go give back addresses before new ones are taken.
        for service in services {
            orchestrator::update::judge(planning, service, &mut self.index.slots);
        }
        allocator::port::allocate(planning, services.iter());
        planning.make_room(self.tasks_max);
        let turn = self.turn.take().unwrap_or_default();
        for service in services.range(turn.clone()..).chain(services.range(..turn)) {
            if planning.is_full() {
                self.turn.get_or_insert_with(|| service.clone());
            } else {
                let mut slots = self.index.slots.take(service);
                orchestrator::orchestrate(planning, service, &mut slots, &self.index);
                self.index.slots.put(service, slots);
                self.wakes.set(Step::Orchestrate, service, planning.take_wake());
            }
            if planning.is_full() {
                self.rest.insert(service.clone());
            }
        }
        planning.is_full()
    }

    /// Gives pending tasks their nodes, where there is one that is new or one that may be placed
    /// now. Those that wait are asked, too: what they lack may be what others get.
    fn schedule(
        &mut self,
        planning: &mut Planning<'_>,
        (news, services): (&mut News, &mut BTreeSet<ServiceId>),
    ) {
        let index = &mut self.index;
        news.add(&index.follow(&planning.tx, planning.now));
        let may_be_placed =
            news.nodes || services.iter().any(|it| Index::is_in(&index.pending, it));
        services.extend(scheduler::schedule(planning, index, may_be_placed));
    }
}

/// What asks for another plan at a certain time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Orchestrate,
    Watch,
}

/// The deadlines of services.
#[derive(Debug, Default)]
struct Wakes {
    of_service: BTreeMap<(ServiceId, Step), Timestamp>,
    in_order: BTreeSet<(Timestamp, ServiceId, Step)>,
}

impl Wakes {
    fn set(&mut self, step: Step, service: &ServiceId, wake: Option<Timestamp>) {
        let key = (service.clone(), step);
        if let Some(time) = self.of_service.remove(&key) {
            self.in_order.remove(&(time, service.clone(), step));
        }
        if let Some(time) = wake {
            self.of_service.insert(key, time);
            self.in_order.insert((time, service.clone(), step));
        }
    }

    /// The services whose time has come.
    fn due(&self, now: Timestamp) -> impl Iterator<Item = ServiceId> {
        let due = self.in_order.iter().take_while(move |(time, _, _)| *time <= now);
        due.map(|(_, service, _)| service.clone())
    }

    fn next(&self) -> Option<Timestamp> {
        self.in_order.first().map(|(time, _, _)| *time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Count, NOW, read, seconds};
    use std::fmt::Write;
    use store::Tx;
    use types::{ServiceMode, TaskState, Version};

    const REPLICAS: usize = 1_000;

    struct World {
        view: View,
        planner: Planner,
        ids: Count,
    }

    impl World {
        /// A service of which all tasks run.
        fn new(tasks_max: usize) -> Self {
            let mut text = format!("node n1\nservice web replicas={REPLICAS} image=one\n");
            for slot in 1..=REPLICAS {
                writeln!(text, "task web.{slot} running n1").expect("text");
            }
            let planner = Planner::with_tasks_max(tasks_max);
            let mut world = Self { view: read(&text), planner, ids: Count(0) };
            assert!(REPLICAS <= world.looks(), "it knows nothing yet");
            world
        }

        fn write(&mut self, edit: impl FnOnce(&mut Tx)) {
            let mut tx = Tx::new(&self.view);
            edit(&mut tx);
            self.commit(&tx.finish());
        }

        fn commit(&mut self, changes: &store::Changes) {
            let version = Version(self.view.version().0 + 1);
            self.view.apply(changes, version, seconds(NOW));
        }

        /// Plans until nothing changes; says at how many slots it looked.
        fn looks(&mut self) -> usize {
            loop {
                let plan = self.planner.plan(&self.view, seconds(NOW), &mut self.ids);
                if plan.changes.is_empty() {
                    return self.planner.index.slots.take_looks();
                }
                self.commit(&plan.changes);
            }
        }

        /// All tasks of an image that are in a state enter the next one.
        fn enter(&mut self, image: &str, [state, next]: [TaskState; 2]) -> usize {
            let is_it = |task: &types::Task| {
                task.spec.container.image == image && task.status.state == state
            };
            let tasks = self.view.tasks().filter(|task| is_it(task)).map(|task| task.id.clone());
            let tasks: Vec<_> = tasks.collect();
            self.write(|tx| {
                for task in &tasks {
                    tx.edit_task(task, |task| task.status.state = next);
                }
            });
            tasks.len()
        }
    }

    #[test]
    fn an_update_looks_at_the_slots_that_changed() {
        let mut world = World::new(TASKS_MAX);
        world.write(|tx| {
            tx.edit_service(&"web".into(), |service| {
                service.spec.task.container.image = "two".to_owned();
            });
        });
        assert!(world.looks() <= 2 * REPLICAS, "each slot once as the spec is another one");
        for steps in 1..10 {
            for [state, next] in [
                [TaskState::Assigned, TaskState::Preparing],
                [TaskState::Preparing, TaskState::Ready],
            ] {
                assert_eq!(world.enter("two", [state, next]), 1);
                assert!(world.looks() <= 2, "the new task's alone");
            }
            let old = world.view.tasks().find(|it| !it.is_wanted() && it.occupies()).cloned();
            let old = old.expect("a task that stops").id.clone();
            world.write(|tx| tx.edit_task(&old, |task| task.status.state = TaskState::Shutdown));
            assert!(world.looks() <= 4, "the old task's, where the new one starts");
            assert_eq!(world.enter("two", [TaskState::Ready, TaskState::Running]), 1);
            assert!(world.looks() <= 6, "the new task's, and the next one to be replaced");
            let is_new = |it: &&std::sync::Arc<types::Task>| it.spec.container.image == "two";
            assert_eq!(world.view.tasks().filter(is_new).count(), steps + 1);
        }
    }

    #[test]
    fn what_goes_in_many_plans_is_not_looked_at_again_in_each() {
        let mut world = World::new(REPLICAS / 50);
        world.write(|tx| {
            let mode = ServiceMode::Replicated { replicas: 0 };
            tx.edit_service(&"web".into(), |service| service.spec.mode = mode);
        });
        assert!(world.looks() <= 4 * REPLICAS);
        assert_eq!(world.enter("one", [TaskState::Running, TaskState::Shutdown]), REPLICAS);
        assert!(world.looks() <= 4 * REPLICAS);
        assert_eq!(world.view.tasks().len(), 0);
    }
}
