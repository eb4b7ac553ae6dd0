//! The manager's disk: the log and its snapshots, in bytes.

use serde::{Deserialize, Serialize};
use std::time::Duration;
use store::{Changes, Snapshot, View};
use types::{Specs, Timestamp, Version};

/// Entries after which a snapshot takes their place.
const SNAPSHOT: usize = 150;

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Entry {
    index: Version,
    time: Timestamp,
    changes: Changes,
    specs: Specs,
}

/// What is left when the process dies.
#[derive(Debug, Default)]
pub struct Log {
    snapshot: Option<Vec<u8>>,
    entries: Vec<Vec<u8>>,
    /// Faults that last.
    pub full: u32,
    pub slow: Vec<Duration>,
}

impl Log {
    pub fn is_well(&self) -> bool {
        self.full == 0 && self.slow.is_empty()
    }

    /// Writes an entry down.
    pub fn append(
        &mut self,
        before: &View,
        changes: &Changes,
        (index, time): (Version, Timestamp),
    ) {
        let (changes, specs) = (changes.with_specs_by_id(), changes.new_specs(before));
        let entry = Entry { index, time, changes, specs };
        self.entries.push(wire::encode(&entry).expect("an entry can be written"));
    }

    /// Puts a snapshot in the place of entries when there are many.
    pub fn compact(&mut self, view: &View) {
        if self.entries.len() >= SNAPSHOT {
            let snapshot = wire::encode(&Snapshot::from(view)).expect("a snapshot can be written");
            self.snapshot = Some(snapshot);
            self.entries.clear();
        }
    }

    /// What the disk holds.
    pub fn replay(&self) -> View {
        let mut view = match &self.snapshot {
            Some(bytes) => {
                let snapshot: Snapshot = wire::decode(bytes).expect("a snapshot can be read");
                View::try_from(snapshot).expect("a snapshot is whole")
            }
            None => View::default(),
        };
        for bytes in &self.entries {
            let Entry { index, time, mut changes, specs } =
                wire::decode(bytes).expect("an entry can be read");
            changes.give_specs(&specs, &view).expect("an entry is whole");
            view.apply(&changes, index, time);
        }
        view
    }
}
