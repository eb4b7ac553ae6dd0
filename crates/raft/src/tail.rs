//! The newest entries of the log, for people: what they changed by kind and id, and nothing of what is
//! in it.

use crate::consensus::Entry;
use crate::sequencer::{Sequencer, stopping};
use openraft::EntryPayload;
use openraft::async_runtime::watch::WatchReceiver;
use std::collections::BTreeSet;
use store::{Change, Key};
use types::{Fault, Timestamp};

/// Entries that are shown at once.
const ENTRIES_MAX: u64 = 1000;

/// An entry of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    pub index: u64,
    pub term: u64,
    pub content: LogContent,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogContent {
    /// A leader began its term.
    Term,
    Changes {
        time: Timestamp,
        written: Vec<Key>,
        removed: Vec<Key>,
    },
    Members {
        voters: BTreeSet<u64>,
        learners: BTreeSet<u64>,
    },
}

impl Sequencer {
    /// The newest entries on this member's disk, the oldest first: so many at most.
    pub async fn tail(&self, count: u64) -> Result<Vec<LogEntry>, Fault> {
        let disk = self.shared.disk.upgrade().ok_or_else(stopping)?;
        let last = self.shared.metrics.borrow_watched().last_log_index.unwrap_or_default();
        let read = tokio::task::spawn_blocking(move || {
            let first = (last + 1).saturating_sub(count.min(ENTRIES_MAX));
            disk.entries(first, last + 1, u64::MAX)
        });
        let entries = read.await.map_err(|_ended| stopping())?;
        let entries =
            entries.map_err(|error| Fault::internal(format!("cannot read the log: {error}")))?;
        Ok(entries.into_iter().map(LogEntry::of).collect())
    }
}

impl LogEntry {
    fn of(entry: Entry) -> Self {
        let content = match entry.payload {
            EntryPayload::Blank => LogContent::Term,
            EntryPayload::Membership(membership) => LogContent::Members {
                voters: membership.voter_ids().collect(),
                learners: membership.learner_ids().collect(),
            },
            EntryPayload::Normal(record) => {
                let (mut written, mut removed) = (Vec::new(), Vec::new());
                for change in record.changes.changes {
                    match &change {
                        Change::Put(_) => written.push(change.key()),
                        Change::Remove(key) => removed.push(key.clone()),
                    }
                }
                LogContent::Changes { time: record.time, written, removed }
            }
        };
        let id = entry.log_id;
        Self { index: id.index, term: *id.leader_id, content }
    }
}
