//! A transaction: reads its own writes, ends as [`Changes`].

use crate::{Change, Changes, Key, Object, Record, View};
use std::collections::BTreeSet;
use std::ops::Deref;
use std::sync::Arc;
use types::{Cluster, Network, NetworkId, Node, NodeId, Service, ServiceId, Task, TaskId};

/// A transaction. It is read like a [`View`], its own writes included; the view it was made from
/// stays as it is.
///
/// Objects keep the meta they had (a new one has version 0) until the changes are applied.
#[derive(Clone, Debug)]
pub struct Tx {
    before: View,
    now: View,
    touched: BTreeSet<Key>,
}

impl Tx {
    pub fn new(view: &View) -> Self {
        Self { before: view.clone(), now: view.clone(), touched: BTreeSet::new() }
    }

    /// The view this transaction started from.
    pub fn before(&self) -> &View {
        &self.before
    }

    /// Stores an object, in the place of the one that has its id.
    pub fn put<T: Record>(&mut self, object: T) {
        self.store(Arc::new(object).object());
    }

    /// Changes an object, if it is there.
    pub fn edit<T: Record>(&mut self, id: &T::Id, edit: impl FnOnce(&mut T)) {
        if let Some(mut object) = self.now.get::<T>(id).cloned() {
            edit(Arc::make_mut(&mut object));
            self.store(object.object());
        }
    }

    /// Removes an object, if it is there.
    pub fn remove<T: Record>(&mut self, id: &T::Id) {
        let key = T::key(id);
        self.now.remove(&key);
        self.touched.insert(key);
    }

    pub(crate) fn store(&mut self, object: Object) {
        self.touched.insert(object.key());
        self.now.insert(object);
    }

    /// Changes the cluster, if it is there.
    pub fn edit_cluster(&mut self, edit: impl FnOnce(&mut Cluster)) {
        if let Some(id) = self.now.cluster().map(|cluster| cluster.id.clone()) {
            self.edit(&id, edit);
        }
    }

    pub fn put_cluster(&mut self, cluster: Cluster) {
        self.put(cluster);
    }

    pub fn put_node(&mut self, node: Node) {
        self.put(node);
    }

    pub fn put_network(&mut self, network: Network) {
        self.put(network);
    }

    pub fn put_service(&mut self, service: Service) {
        self.put(service);
    }

    pub fn put_task(&mut self, task: Task) {
        self.put(task);
    }

    pub fn edit_node(&mut self, id: &NodeId, edit: impl FnOnce(&mut Node)) {
        self.edit(id, edit);
    }

    pub fn remove_node(&mut self, id: &NodeId) {
        self.remove::<Node>(id);
    }

    pub fn edit_network(&mut self, id: &NetworkId, edit: impl FnOnce(&mut Network)) {
        self.edit(id, edit);
    }

    pub fn remove_network(&mut self, id: &NetworkId) {
        self.remove::<Network>(id);
    }

    pub fn edit_service(&mut self, id: &ServiceId, edit: impl FnOnce(&mut Service)) {
        self.edit(id, edit);
    }

    pub fn remove_service(&mut self, id: &ServiceId) {
        self.remove::<Service>(id);
    }

    pub fn edit_task(&mut self, id: &TaskId, edit: impl FnOnce(&mut Task)) {
        self.edit(id, edit);
    }

    pub fn remove_task(&mut self, id: &TaskId) {
        self.remove::<Task>(id);
    }

    /// What differs from the view this transaction started from: writing an object as it was
    /// changes nothing.
    pub fn finish(self) -> Changes {
        let mut changes = Vec::new();
        for key in self.touched {
            let before = self.before.object(&key);
            match self.now.object(&key) {
                Some(object) if before.as_ref() != Some(&object) => {
                    changes.push(Change::Put(object));
                }
                None if before.is_some() => changes.push(Change::Remove(key)),
                Some(_) | None => {}
            }
        }
        Changes { changes }
    }
}

impl Deref for Tx {
    type Target = View;

    fn deref(&self) -> &View {
        &self.now
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Snapshot;
    use proptest::prelude::*;
    use types::{Timestamp, Version};

    fn task(id: &str, service: &str, node: Option<&str>) -> Task {
        Task {
            id: id.into(),
            service: service.into(),
            node: node.map(NodeId::from),
            ..Task::default()
        }
    }

    fn ids<'a>(tasks: impl Iterator<Item = &'a Arc<Task>>) -> Vec<&'a str> {
        tasks.map(|task| task.id.as_str()).collect()
    }

    #[test]
    fn a_transaction_reads_its_own_writes_and_its_view_stays() {
        let view = View::default();
        let mut tx = Tx::new(&view);
        tx.put_task(task("t1", "s1", None));
        tx.edit_task(&"t1".into(), |task| task.node = Some("n1".into()));
        assert_eq!(ids(tx.tasks_of_node(&"n1".into())), ["t1"]);
        assert_eq!(ids(tx.tasks_of_service(&"s1".into())), ["t1"]);
        assert_eq!(view.tasks().len(), 0);
        tx.remove_task(&"t1".into());
        assert!(tx.finish().is_empty());
    }

    #[test]
    fn writing_an_object_as_it_was_changes_nothing() {
        let mut view = View::default();
        let mut tx = Tx::new(&view);
        tx.put_task(task("t1", "s1", None));
        view.apply(&tx.finish(), Version(3), Timestamp(30));
        let mut tx = Tx::new(&view);
        tx.edit_task(&"t1".into(), |_| {});
        assert!(tx.finish().is_empty());
    }

    #[test]
    fn applying_sets_version_and_times_and_keeps_the_birthday() {
        let mut view = View::default();
        let mut tx = Tx::new(&view);
        tx.put_task(task("t1", "s1", None));
        view.apply(&tx.finish(), Version(3), Timestamp(30));
        let mut tx = Tx::new(&view);
        tx.edit_task(&"t1".into(), |task| task.slot = 1);
        view.apply(&tx.finish(), Version(4), Timestamp(40));
        let meta = view.task(&"t1".into()).map(|task| task.meta);
        let expected = types::Meta {
            version: Version(4),
            created_at: Timestamp(30),
            updated_at: Timestamp(40),
        };
        assert_eq!((meta, view.version()), (Some(expected), Version(4)));
    }

    #[test]
    fn tasks_that_were_read_share_the_spec_of_their_service() {
        let mut service = Service { id: "s1".into(), ..Service::default() };
        service.spec.task.container.image = "new".into();
        let made_of = |id: &str, image: &str| {
            let mut task = task(id, "s1", None);
            task.spec.container.image = image.into();
            task
        };
        let mut tx = Tx::new(&View::default());
        tx.put_service(service);
        for (id, image) in [("t1", "new"), ("t2", "new"), ("t3", "old"), ("t4", "old")] {
            tx.put_task(made_of(id, image));
        }
        let spec = |id: &str| &tx.task(&id.into()).unwrap().spec;
        let own = &tx.service(&"s1".into()).unwrap().spec.task;
        assert!(spec("t1").is_shared_with(own) && spec("t2").is_shared_with(own));
        assert!(spec("t4").is_shared_with(spec("t3")) && !spec("t3").is_shared_with(own));
        // A task that is read again keeps what it shared.
        tx.put_task(made_of("t3", "old"));
        let spec = |id: &str| &tx.task(&id.into()).unwrap().spec;
        assert!(spec("t4").is_shared_with(spec("t3")));
    }

    proptest! {
        /// The indexes are what looking through all tasks would find, and a snapshot restores them.
        #[test]
        fn indexes_agree_with_the_tables(
            writes in prop::collection::vec((0..8u8, 0..3u8, 0..3u8, any::<bool>()), 0..60)
        ) {
            let mut view = View::default();
            for (index, (id, service, node, keep)) in writes.into_iter().enumerate() {
                let mut tx = Tx::new(&view);
                let node = (node > 0).then(|| format!("n{node}"));
                let task = task(&format!("t{id}"), &format!("s{service}"), node.as_deref());
                if keep { tx.put_task(task) } else { tx.remove_task(&task.id) }
                let index = u64::try_from(index).unwrap_or(0);
                view.apply(&tx.finish(), Version(index), Timestamp(0));
            }
            let restored = View::try_from(Snapshot::from(&view)).unwrap();
            for view in [&view, &restored] {
                for row in 0..3 {
                    let (service, node) =
                        (format!("s{row}").as_str().into(), format!("n{row}").as_str().into());
                    let on_node = |task: &&Arc<Task>| task.node.as_ref() == Some(&node);
                    prop_assert_eq!(
                        ids(view.tasks_of_service(&service)),
                        ids(view.tasks().filter(|task| task.service == service))
                    );
                    prop_assert_eq!(
                        ids(view.tasks_of_node(&node)),
                        ids(view.tasks().filter(on_node))
                    );
                }
            }
        }
    }
}
