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
    use proptest::sample::Index;
    use std::collections::BTreeSet;
    use std::sync::Arc;
    use types::{Timestamp, Version};

    /// An object of any kind, and whether it is written or removed.
    fn change() -> impl Strategy<Value = Change> {
        (any::<Index>(), 0..60u8, any::<bool>(), any::<bool>()).prop_map(|(kind, id, put, flag)| {
            let all = Object::one_of_each(&format!("id{id:02}"));
            let mut object = kind.get(&all).clone();
            match &mut object {
                Object::Network(network) => Arc::make_mut(network).removed = flag,
                Object::Task(task) => Arc::make_mut(task).node = flag.then(|| "n".into()),
                _ => {}
            }
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
        let keys = |view: &View| view.tables.objects().map(|it| it.key()).collect::<Vec<_>>();
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
