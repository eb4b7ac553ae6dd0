//! What differs between two views.

use crate::table::Table;
use crate::{Key, Record, View};
use imbl::ordmap::DiffItem;

impl View {
    /// The objects that differ between `before` and this view, in the order of kinds: those that
    /// were written, even as they were, and those that came and went.
    ///
    /// What both views share is skipped, so this costs what changed where one view was made of the
    /// other, and as much as there is where they have nothing to do with each other.
    pub fn changes_since<'a>(&'a self, before: &'a Self) -> impl Iterator<Item = Key> {
        self.tables.changes_since(&before.tables)
    }
}

/// Tasks are `Eq`, so that two `Arc`s of one task are equal without a look at it.
pub(crate) fn differing<'a, T: Record>(
    before: &'a Table<T>,
    after: &'a Table<T>,
) -> impl Iterator<Item = Key> {
    before.diff(after).map(|item| match item {
        DiffItem::Add(id, _) | DiffItem::Remove(id, _) | DiffItem::Update { new: (id, _), .. } => {
            T::key(id)
        }
    })
}

#[cfg(test)]
mod tests {
    use crate::{Change, Changes, Key, Object, View};
    use proptest::prelude::*;
    use std::collections::BTreeSet;
    use std::sync::Arc;
    use types::{Cluster, Network, Node, Service, Task, Timestamp, Version};

    /// An object of one of five kinds, and whether it is written or removed.
    fn change() -> impl Strategy<Value = Change> {
        (0..5u8, 0..60u8, any::<bool>(), any::<bool>()).prop_map(|(kind, id, put, flag)| {
            let text = format!("id{id:02}");
            let object = match kind {
                0 => Object::Cluster(Arc::new(Cluster { id: "c".into(), ..Cluster::default() })),
                1 => Object::Node(Arc::new(Node { id: text.into(), ..Node::default() })),
                2 => Object::Network(Arc::new(Network {
                    id: text.into(),
                    removed: flag,
                    ..Network::default()
                })),
                3 => Object::Service(Arc::new(Service { id: text.into(), ..Service::default() })),
                _ => Object::Task(Arc::new(Task {
                    id: text.into(),
                    node: flag.then(|| "n".into()),
                    ..Task::default()
                })),
            };
            if put { Change::Put(object) } else { Change::Remove(object.key()) }
        })
    }

    fn batches() -> impl Strategy<Value = Vec<Vec<Change>>> {
        prop::collection::vec(prop::collection::vec(change(), 0..20), 0..20)
    }

    fn apply(view: &mut View, batches: &[Vec<Change>]) {
        for batch in batches {
            let version = Version(view.version().0 + 1);
            view.apply(&Changes { changes: batch.clone() }, version, Timestamp(0));
        }
    }

    /// Looks at everything.
    fn compared(before: &View, after: &View) -> BTreeSet<Key> {
        let keys = |view: &View| -> Vec<Key> {
            let clusters = view.cluster().into_iter().map(|it| Key::Cluster(it.id.clone()));
            let nodes = view.nodes().map(|it| Key::Node(it.id.clone()));
            let networks = view.networks().map(|it| Key::Network(it.id.clone()));
            let services = view.services().map(|it| Key::Service(it.id.clone()));
            let tasks = view.tasks().map(|it| Key::Task(it.id.clone()));
            clusters.chain(nodes).chain(networks).chain(services).chain(tasks).collect()
        };
        let all: BTreeSet<Key> = keys(before).into_iter().chain(keys(after)).collect();
        all.into_iter().filter(|key| before.object(key) != after.object(key)).collect()
    }

    proptest! {
        /// Whether the views share much, little or nothing: the same as comparing everything, each
        /// object once and in order.
        #[test]
        fn changes_are_what_comparing_everything_finds(
            first in batches(),
            then in batches(),
            last in batches(),
        ) {
            let mut before = View::default();
            apply(&mut before, &first);
            let mut after = before.clone();
            apply(&mut after, &then);
            let mut beside = before.clone();
            apply(&mut beside, &last);
            let mut other = View::default();
            apply(&mut other, &then);
            let pairs =
                [(&before, &after), (&after, &before), (&beside, &after), (&before, &other)];
            for (before, after) in pairs {
                let changes: Vec<Key> = after.changes_since(before).collect();
                let expected: Vec<Key> = compared(before, after).into_iter().collect();
                prop_assert_eq!(changes, expected);
            }
        }
    }
}
