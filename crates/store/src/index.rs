//! How objects are found otherwise than by their ids.

use crate::claim::{Claim, Claims, claim_the_same};
use crate::{Key, Object};
use imbl::{OrdMap, OrdSet};
use std::sync::Arc;
use types::{NetworkId, NodeId, ServiceId, SharedSpec, SpecId, Task, TaskId};

/// Rows of tasks. What a task says of itself is in its table alone.
pub(crate) type TasksBy<I> = OrdMap<I, OrdSet<TaskId>>;

/// Follows from the tables; kept with each object that is stored or removed.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Indexes {
    pub(crate) claims: Claims,
    pub(crate) tasks_by_service: TasksBy<ServiceId>,
    pub(crate) tasks_by_node: TasksBy<NodeId>,
    /// What the tasks are made from.
    pub(crate) specs: OrdMap<SpecId, Made>,
    /// Networks of the routing mesh: there is one.
    pub(crate) ingress: OrdSet<NetworkId>,
    /// How many services are jobs.
    pub(crate) jobs: usize,
}

/// A spec, and how many tasks are made from it: it goes with the last one.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Made {
    pub(crate) spec: SharedSpec,
    tasks: usize,
}

impl Indexes {
    /// Follows the object of `key` from what it was to what it is.
    pub(crate) fn replace(&mut self, key: &Key, was: Option<&Object>, is: Option<&Object>) {
        if !was.zip(is).is_some_and(|(was, is)| claim_the_same(was, is)) {
            let claims = |object: Option<&Object>| object.map(Claim::all_of).unwrap_or_default();
            self.claims.replace(key, claims(was), claims(is));
        }
        let ((task_was, task_is), (ingress_was, ingress_is)) =
            ((task(was), task(is)), (ingress(was), ingress(is)));
        follow(&mut self.tasks_by_service, task_was, task_is, |task| Some(&task.service));
        follow(&mut self.tasks_by_node, task_was, task_is, |task| task.node.as_ref());
        self.follow_spec(task_was, task_is);
        if ingress_was != ingress_is {
            ingress_was.map(|id| self.ingress.remove(id));
            ingress_is.map(|id| self.ingress.insert(id.clone()));
        }
        self.jobs += usize::from(is.is_some_and(is_job));
        self.jobs -= usize::from(was.is_some_and(is_job));
    }
}

impl Indexes {
    fn follow_spec(&mut self, was: Option<&Arc<Task>>, is: Option<&Arc<Task>>) {
        let (left, entered) = (was.map(|task| &task.spec), is.map(|task| &task.spec));
        if left.map(SharedSpec::id) == entered.map(SharedSpec::id) {
            return;
        }
        if let Some(spec) = entered {
            let made = || Made { spec: spec.clone(), tasks: 0 };
            self.specs.entry(spec.id().clone()).or_insert_with(made).tasks += 1;
        }
        if let Some(spec) = left
            && let Some(made) = self.specs.get_mut(spec.id())
        {
            made.tasks -= 1;
            if made.tasks == 0 {
                self.specs.remove(spec.id());
            }
        }
    }
}

pub(crate) fn is_job(object: &Object) -> bool {
    match object {
        Object::Service(service) => service.spec.mode.is_job(),
        Object::Cluster(_)
        | Object::Node(_)
        | Object::Network(_)
        | Object::Task(_)
        | Object::Secret(_)
        | Object::Config(_) => false,
    }
}

fn task(object: Option<&Object>) -> Option<&Arc<Task>> {
    match object? {
        Object::Task(task) => Some(task),
        Object::Cluster(_)
        | Object::Node(_)
        | Object::Network(_)
        | Object::Service(_)
        | Object::Secret(_)
        | Object::Config(_) => None,
    }
}

fn ingress(object: Option<&Object>) -> Option<&NetworkId> {
    match object? {
        Object::Network(network) => Some(&network.id).filter(|_| network.spec.ingress),
        Object::Cluster(_)
        | Object::Node(_)
        | Object::Service(_)
        | Object::Task(_)
        | Object::Secret(_)
        | Object::Config(_) => None,
    }
}

/// Puts a task into the row of an index that it belongs to now. An index keeps no empty rows.
fn follow<I: Clone + Ord>(
    index: &mut TasksBy<I>,
    was: Option<&Arc<Task>>,
    is: Option<&Arc<Task>>,
    row: impl Fn(&Task) -> Option<&I>,
) {
    let (left, entered) = (was.and_then(|task| row(task)), is.and_then(|task| row(task)));
    if left == entered {
        return;
    }
    if let (Some(left), Some(was)) = (left, was)
        && let Some(tasks) = index.get_mut(left)
    {
        tasks.remove(&was.id);
        if tasks.is_empty() {
            index.remove(left);
        }
    }
    if let (Some(entered), Some(is)) = (entered, is) {
        index.entry(entered.clone()).or_default().insert(is.id.clone());
    }
}

#[cfg(test)]
mod tests {
    use crate::{Changes, Snapshot, Tx, View};
    use proptest::prelude::*;
    use std::collections::BTreeSet;
    use types::{Service, SpecId, Specs, Task, Timestamp, Version};

    /// One task or service: its number, what it is made from, and whether it is there.
    type Write = (u8, u8, bool);

    fn changes(view: &View, writes: &[Write]) -> Changes {
        let mut tx = Tx::new(view);
        for (number, image, there) in writes {
            let id = format!("id{number}");
            let mut service = Service { id: id.as_str().into(), ..Service::default() };
            service.spec.name.clone_from(&id);
            service.spec.task.container.image = format!("image{image}");
            let task = Task {
                id: id.as_str().into(),
                service: service.id.clone(),
                spec: service.spec.task.clone(),
                ..Task::default()
            };
            match (there, number % 2) {
                (true, 0) => tx.put(service),
                (true, _) => tx.put(task),
                (false, 0) => tx.remove::<Service>(&service.id),
                (false, _) => tx.remove::<Task>(&task.id),
            }
        }
        tx.finish()
    }

    /// What is written of changes, and read by one who has `view`.
    fn written_and_read(changes: &Changes, specs: &Specs, view: &View) -> Changes {
        let bytes = msgpack::encode(&(changes.with_specs_by_id(), specs)).unwrap();
        let (mut changes, specs): (Changes, Specs) = msgpack::decode(&bytes).unwrap();
        changes.give_specs(&specs, view).unwrap();
        changes
    }

    fn check_specs(view: &View) {
        let kept: BTreeSet<&SpecId> = view.indexes.specs.keys().collect();
        let named: BTreeSet<&SpecId> = view.tasks().map(|task| task.spec.id()).collect();
        assert_eq!(kept, named);
        for task in view.tasks() {
            assert!(task.spec.is_known());
            assert!(view.spec(task.spec.id()).unwrap().is_shared_with(&task.spec));
        }
    }

    proptest! {
        /// A spec is kept as long as a task is made from it and no longer; who follows by what is
        /// written, several transactions at a time, comes to the same view; so does who reads the
        /// whole.
        #[test]
        fn specs_are_written_once_and_found_again(
            records in prop::collection::vec(
                prop::collection::vec(
                    prop::collection::vec((0..8u8, 0..3u8, any::<bool>()), 1..4),
                    1..4,
                ),
                0..20,
            )
        ) {
            let (mut leader, mut follower) = (View::default(), View::default());
            for (index, batch) in records.iter().enumerate() {
                let (version, time) = (Version(index.try_into().unwrap()), Timestamp(1));
                let before = leader.clone();
                let mut record = Changes::default();
                for writes in batch {
                    let changes = changes(&leader, writes);
                    leader.apply(&changes, version, time);
                    record.changes.extend(changes.changes);
                }
                let read = written_and_read(&record, &record.new_specs(&before), &follower);
                follower.apply(&read, version, time);
                prop_assert_eq!(Snapshot::from(&follower), Snapshot::from(&leader));
                check_specs(&leader);
                check_specs(&follower);
                let whole = msgpack::encode(&Snapshot::from(&leader)).unwrap();
                let whole: Snapshot = msgpack::decode(&whole).unwrap();
                let restored = View::try_from(whole).unwrap();
                prop_assert_eq!(Snapshot::from(&restored), Snapshot::from(&leader));
                prop_assert_eq!(&restored.indexes, &leader.indexes);
                check_specs(&restored);
            }
        }
    }

    #[test]
    fn a_spec_that_is_nowhere_is_refused_by_name() {
        let view = View::default();
        let changes = changes(&view, &[(1, 1, true)]);
        let bytes = msgpack::encode(&changes.with_specs_by_id()).unwrap();
        let mut read: Changes = msgpack::decode(&bytes).unwrap();
        let error = read.give_specs(&Specs::default(), &view).unwrap_err().to_string();
        assert!(error.starts_with("task id1 is made from the spec "), "{error}");
    }
}
