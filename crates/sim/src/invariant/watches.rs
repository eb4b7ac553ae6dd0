//! Whoever follows what happens in the cluster sees each change once and in the one order, whichever
//! manager is asked: one that is behind, one that has just come back, or now this one and then that.

use super::{Invariant, Verdict};
use crate::context::Happened;
use crate::manager::Manager;
use crate::world::World;
use std::collections::BTreeMap;
use std::sync::Arc;
use store::{Event, View};
use types::Timestamp;

/// One who follows.
#[derive(Debug, Default)]
struct Watcher {
    /// The time of the last event that was seen, and how many there were.
    position: Timestamp,
    seen: usize,
}

#[derive(Debug, Default)]
pub(super) struct Watches {
    /// All that has happened, as what is committed says.
    all: Vec<Arc<Event>>,
    /// One for each manager, by its machine.
    loyal: BTreeMap<usize, Watcher>,
    /// Asks another manager each time.
    roaming: Watcher,
    asked: usize,
}

impl Watcher {
    /// Reads on in what a manager shows.
    fn read(&mut self, view: &View, all: &[Arc<Event>]) -> Verdict {
        let history = view.history();
        if self.position < history.whole_after() {
            return Err(format!("events after {:?} are forgotten", self.position));
        }
        for event in history.after(self.position) {
            if all.get(self.seen) != Some(event) {
                let expected = all.get(self.seen);
                return Err(format!("event {} is {event:?} and not {expected:?}", self.seen));
            }
            self.position = event.time;
            self.seen += 1;
        }
        Ok(())
    }
}

impl Watches {
    /// Notes what is committed since it was asked last.
    fn note(&mut self, newest: &View) {
        let last = self.all.last().map_or(Timestamp(0), |event| event.time);
        self.all.extend(newest.history().after(last).cloned());
    }

    fn ask(&mut self, world: &World) -> Verdict {
        self.note(world.view());
        let managers = world.managers.iter();
        let views: Vec<(usize, &View)> =
            managers.filter_map(|(machine, it)| Some((*machine, it.view()?))).collect();
        for (machine, view) in &views {
            let watcher = self.loyal.entry(*machine).or_default();
            let read = watcher.read(view, &self.all);
            read.map_err(|why| format!("as machine {machine} shows it, {why}"))?;
        }
        self.asked += 1;
        let Some((machine, view)) = self.asked.checked_rem(views.len()).map(|at| views[at]) else {
            return Ok(());
        };
        let read = self.roaming.read(view, &self.all);
        read.map_err(|why| format!("for one who asks machine {machine} now, {why}"))
    }
}

impl Invariant for Watches {
    fn name(&self) -> &'static str {
        "every manager tells the same events"
    }

    fn happened(&mut self, world: &World, what: &Happened) -> Verdict {
        match what {
            Happened::Stored { .. } => {
                self.note(world.view());
                Ok(())
            }
            Happened::Back { .. } => self.ask(world),
            _ => Ok(()),
        }
    }

    fn look(&mut self, world: &World) -> Verdict {
        self.ask(world)
    }

    fn settled(&mut self, world: &World) -> Verdict {
        self.ask(world)?;
        for (machine, manager) in &world.managers {
            let has_all = Manager::view(manager).map(View::version) == Some(world.view().version());
            let seen = self.loyal.get(machine).map_or(0, |it| it.seen);
            if has_all && seen < self.all.len() {
                return Err(format!("machine {machine} has told {seen} of {}", self.all.len()));
            }
        }
        Ok(())
    }
}
