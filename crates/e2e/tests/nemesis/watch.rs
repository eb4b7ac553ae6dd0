//! Those who follow what happens all the while: one at each manager, and one who asks another manager
//! whenever an answer ends.

use crate::client::Book;
use e2e::watch::{Watcher, check};
use e2e::{Lab, until};
use std::path::PathBuf;
use std::time::Duration;

/// For the last event to come to all of them.
const LAST_MAX: Duration = Duration::from_secs(30);

pub(crate) struct Watches {
    /// At the manager of this number; the last one at any.
    watchers: Vec<Watcher>,
}

impl Watches {
    pub(crate) fn start(lab: &Lab, managers: u8) -> Self {
        let sockets: Vec<PathBuf> = (1..=managers).map(|node| lab.socket(node)).collect();
        let loyal = sockets.clone().into_iter();
        let mut watchers: Vec<_> =
            loyal.map(|socket| Watcher::start(move |_| socket.clone())).collect();
        watchers.push(Watcher::start(move |asked| sockets[asked % sockets.len()].clone()));
        Self { watchers }
    }

    /// The one that asks any manager asks another one.
    pub(crate) fn move_on(&self) {
        if let Some(roaming) = self.watchers.last() {
            roaming.shake();
        }
    }

    /// All have seen the same: every change that somebody was told is done, once and in order.
    pub(crate) fn check(self, book: &Book) {
        let versions = book.versions();
        let last = versions.seen.iter().map(|(_, version)| *version).max().unwrap();
        for watcher in &self.watchers {
            until("the last event comes", LAST_MAX, || {
                let watched = watcher.watched();
                let newest = watched.events.last().map_or(0, |event| event.version);
                let why = || format!("{newest} of {last}, {:?}", watched.gap);
                if last <= newest { Ok(()) } else { Err(why()) }
            });
        }
        let all: Vec<_> = self.watchers.into_iter().map(Watcher::stop).collect();
        for (number, watched) in (1..).zip(&all) {
            let (asked, count) = (watched.asked, watched.events.len());
            book.tell(format!("watch {number} asked {asked} times and saw {count} events"));
            let checked = check(watched, &versions.seen, &versions.written_on);
            checked.unwrap_or_else(|why| panic!("watch {number}, asked {asked} times: {why}"));
            let known = |events: &[e2e::watch::Seen]| {
                let until = |event: &&e2e::watch::Seen| event.version <= last;
                events.iter().filter(until).cloned().collect::<Vec<_>>()
            };
            let (one, other) = (known(&all[0].events), known(&watched.events));
            let differs = one.iter().zip(&other).find(|(one, other)| one != other);
            assert!(one == other, "watch {number} of {} differs at {differs:?}", other.len());
        }
    }
}
