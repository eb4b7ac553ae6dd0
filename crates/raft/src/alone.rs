//! A member goes on alone: the others of its log are lost for good.
//!
//! What it has of the log stays, also what it cannot know to be settled: the writes that most members
//! had are among it, as far as this one had them, and others may be made though nobody was told so.

use crate::RaftError;
use crate::consensus::{Entry, LogId, Member};
use crate::disk::{Disk, Found, Write, bytes, encode};
use openraft::{EntryPayload, Membership};
use std::collections::{BTreeMap, BTreeSet};
use std::io;

/// Makes `member` the only one of its log, by an entry after all others.
pub(crate) fn go_on(disk: &Disk, member: u64, found: &mut Found) -> Result<(), RaftError> {
    let Some(last) = found.last else { return Ok(()) };
    let (log_id, entry) = only(last, member).map_err(RaftError::Read)?;
    found.last = Some(log_id);
    found.uncovered += bytes(&entry);
    let write = Write::Append { index: log_id.index, entry };
    disk.commit([&write].into_iter()).map_err(RaftError::Read)
}

fn only(last: LogId, member: u64) -> io::Result<(LogId, Vec<u8>)> {
    let log_id = LogId { index: last.index.saturating_add(1), ..last };
    let (voters, members) =
        (BTreeSet::from([member]), BTreeMap::from([(member, Member::default())]));
    let membership = Membership::new(vec![voters], members).map_err(io::Error::other)?;
    let entry = Entry { log_id, payload: EntryPayload::Membership(membership) };
    Ok((log_id, encode(&entry)?))
}
