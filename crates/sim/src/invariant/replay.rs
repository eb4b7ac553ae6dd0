//! A manager that comes back holds exactly what it held: what it acknowledged is in its log and its
//! snapshot, and nothing is lost or made up on the way through bytes.

use super::{Invariant, Verdict};
use crate::context::Happened;
use crate::world::World;
use store::Snapshot;
use types::Version;

#[derive(Debug)]
pub(super) struct Replay;

impl Invariant for Replay {
    fn name(&self) -> &'static str {
        "the log replays to the same view"
    }

    fn happened(&mut self, world: &World, what: &Happened) -> Verdict {
        let Happened::Back { before } = what else { return Ok(()) };
        let after = world.manager.view();
        if before.version() == Version(0) || Snapshot::from(before) == Snapshot::from(after) {
            return Ok(());
        }
        let (before, after) = (Snapshot::from(before), Snapshot::from(after));
        Err(format!("it held {before:?}\nand came back with {after:?}"))
    }
}
