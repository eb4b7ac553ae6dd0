//! What is committed, in bytes: entries, and the snapshot that takes the place of older ones.

use serde::{Deserialize, Serialize};
use store::{Changes, Snapshot, View};
use types::{Specs, Timestamp, Version};

/// Entries after which a snapshot takes their place.
const SNAPSHOT: usize = 150;

/// What a leader adds to the log.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Told apart by this, wherever it ends up.
    pub id: u64,
    pub term: u64,
    pub time: Timestamp,
    pub changes: Changes,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Record {
    index: Version,
    time: Timestamp,
    changes: Changes,
    specs: Specs,
}

#[derive(Debug, Default)]
pub(super) struct Log {
    /// Of this version.
    snapshot: Option<(Version, Vec<u8>)>,
    entries: Vec<Vec<u8>>,
}

impl Log {
    /// The version of the snapshot.
    pub(super) fn compacted(&self) -> Version {
        self.snapshot.as_ref().map_or(Version(0), |(version, _)| *version)
    }

    /// Writes an entry down.
    pub(super) fn append(&mut self, before: &View, entry: &Entry, index: Version) {
        let (time, changes) = (entry.time, &entry.changes);
        let (changes, specs) = (changes.with_specs_by_id(), changes.new_specs(before));
        let record = Record { index, time, changes, specs };
        self.entries.push(wire::encode(&record).expect("an entry can be written"));
    }

    /// Puts a snapshot in the place of entries when there are many.
    pub(super) fn compact(&mut self, view: &View) {
        if self.entries.len() >= SNAPSHOT {
            let snapshot = wire::encode(&Snapshot::from(view)).expect("a snapshot can be written");
            self.snapshot = Some((view.version(), snapshot));
            self.entries.clear();
        }
    }

    /// What the bytes say up to a version; `None` where that is before the snapshot.
    pub(super) fn replay(&self, to: Version) -> Option<View> {
        if to < self.compacted() {
            return None;
        }
        let mut view = match &self.snapshot {
            Some((_, bytes)) => {
                let snapshot: Snapshot = wire::decode(bytes).expect("a snapshot can be read");
                View::try_from(snapshot).expect("a snapshot is whole")
            }
            None => View::default(),
        };
        for bytes in &self.entries {
            if view.version() == to {
                break;
            }
            let Record { index, time, mut changes, specs } =
                wire::decode(bytes).expect("an entry can be read");
            changes.give_specs(&specs, &view).expect("an entry is whole");
            view.apply(&changes, index, time);
        }
        Some(view)
    }
}
