//! A manager that comes back holds exactly what was committed at that version: what it acknowledged
//! is in its log and its snapshot, and nothing is lost or made up on the way through bytes.

use super::{Invariant, Verdict};
use crate::context::Happened;
use crate::manager::Manager;
use crate::world::World;
use store::Snapshot;

#[derive(Debug)]
pub(super) struct Replay;

impl Invariant for Replay {
    fn name(&self) -> &'static str {
        "the log replays to the same view"
    }

    fn happened(&mut self, world: &World, what: &Happened) -> Verdict {
        let Happened::Back { manager, read } = what else { return Ok(()) };
        let manager = world.managers.get(manager).and_then(Manager::view);
        let Some(held) = manager else { return Ok(()) };
        let (held, read) = (Snapshot::from(held), Snapshot::from(read));
        if held == read {
            return Ok(());
        }
        Err(format!("it held {held:?}\nand came back with {read:?}"))
    }
}
