//! The versions of a session only rise, one on top of the other, and nobody acknowledges what was
//! not sent: a node that misses one notices.

use super::{Invariant, Verdict};
use crate::context::Happened;
use crate::world::World;
use std::collections::BTreeMap;

#[derive(Debug, Default)]
pub(super) struct VersionsRise {
    /// The newest version of each connection.
    sent: BTreeMap<u64, u64>,
}

impl Invariant for VersionsRise {
    fn name(&self) -> &'static str {
        "versions of a session only rise"
    }

    fn happened(&mut self, _: &World, what: &Happened) -> Verdict {
        match what {
            Happened::Sent { connection, from, version } => {
                let before = self.sent.insert(*connection, *version);
                if before != *from || before.is_some_and(|before| before >= *version) {
                    return Err(format!("version {version} on {from:?} was sent after {before:?}"));
                }
            }
            Happened::Acknowledged { connection, version } => {
                let sent = self.sent.get(connection).copied().unwrap_or(0);
                if sent < *version {
                    return Err(format!("version {version} is acknowledged, {sent} was sent"));
                }
            }
            _ => {}
        }
        Ok(())
    }
}
