//! The types that the consensus library works with.

use openraft::alias;
use serde::{Deserialize, Serialize, Serializer};
use std::fmt;
use store::{Changes, Format};
use types::{Specs, Timestamp};

/// What one entry of the log says: the changes of a batch and when they were decided.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Record {
    pub(crate) format: Format,
    #[serde(serialize_with = "with_specs_by_id")]
    pub(crate) changes: Changes,
    /// What tasks in it are made from, where the log has not said so before.
    #[serde(skip_serializing_if = "Specs::is_empty")]
    pub(crate) specs: Specs,
    pub(crate) time: Timestamp,
    /// The member that led when it was written; 0: a release wrote it that does not say.
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) leader: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands in a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

fn with_specs_by_id<S: Serializer>(changes: &Changes, serializer: S) -> Result<S::Ok, S::Error> {
    changes.with_specs_by_id().serialize(serializer)
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What changes may hold keys: it must not reach the library's logs.
        write!(f, "{} changes", self.changes.changes.len())
    }
}

/// A manager that holds a copy of the log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Member {
    /// Where other managers reach it; empty while there is one.
    pub(crate) address: String,
}

openraft::declare_raft_types!(
    /// Plain Raft: one leader in a term.
    pub(crate) Consensus:
        D = Record,
        R = (),
        NodeId = u64,
        Node = Member,
        LeaderId = openraft::impls::leader_id_std::LeaderId<u64, u64>,
);

pub(crate) type Entry = alias::EntryOf<Consensus>;
pub(crate) type LogId = alias::LogIdOf<Consensus>;
pub(crate) type Vote = alias::VoteOf<Consensus>;
pub(crate) type SnapshotMeta = alias::SnapshotMetaOf<Consensus>;
pub(crate) type SnapshotData = Vec<u8>;
pub(crate) type Snapshot = alias::SnapshotOf<Consensus, SnapshotData>;
pub(crate) type StoredMembership = alias::StoredMembershipOf<Consensus>;
