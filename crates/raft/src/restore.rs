//! A log that begins with a state from elsewhere.

use crate::consensus::{LogId, Member, SnapshotMeta, StoredMembership};
use crate::disk::{Disk, StoredSnapshot, Write, encode};
use crate::machine::{decode_state, encode_state};
use crate::open::stopped;
use crate::{Config, RaftError};
use openraft::Membership;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use store::View;

/// The term of what is restored: its members will have others.
const TERM: u64 = 1;

/// A state as bytes, which [`read_state`] reads again, in this release and in later ones.
pub fn write_state(view: &View) -> io::Result<Vec<u8>> {
    encode_state(view)
}

/// Refuses what a newer release has written, and what cannot be read.
pub fn read_state(bytes: &[u8]) -> io::Result<View> {
    decode_state(bytes)
}

/// Makes a new log that holds a state, and whose only member is the one that is to open it
/// ([`Start::Resume`](crate::Start::Resume)).
pub async fn restore(config: &Config, view: View) -> Result<(), RaftError> {
    let (directory, keys, member) = (config.directory.clone(), config.keys.clone(), config.member);
    let made = tokio::task::spawn_blocking(move || {
        let (disk, found) = Disk::open(&directory, &keys)?;
        if !disk.claim(&directory, member, &found)? {
            return Err(RaftError::NotEmpty { path: directory });
        }
        let writes = begin(&view, member).map_err(RaftError::Read)?;
        disk.commit(writes.iter()).map_err(RaftError::Read)
    });
    made.await.map_err(stopped)?
}

fn begin(view: &View, member: u64) -> io::Result<[Write; 2]> {
    let id = LogId::new_term_index(TERM, view.version().0);
    let (voters, members) =
        (BTreeSet::from([member]), BTreeMap::from([(member, Member::default())]));
    let membership = Membership::new(vec![voters], members).map_err(io::Error::other)?;
    let last_membership = StoredMembership::new(Some(id), membership);
    let meta = SnapshotMeta { last_log_id: Some(id), last_membership };
    let snapshot = StoredSnapshot { meta, data: encode_state(view)? };
    Ok([
        Write::Snapshot { whole: encode(&snapshot)?, keep: 0 },
        Write::Purge(id.index, encode(&id)?),
    ])
}
