//! The name server as the data plane sees it: a place for the whole state that it shall hold, and
//! what it says that it holds.
//!
//! It runs in this process ([`Names::here`]), or in one of its own that outlives the daemon
//! ([`Names::at`], served by [`serve`]): then containers find names also while no daemon runs.
//! Whoever connects to it tells it everything whole, so one that starts anew needs no history; then
//! it is told what differs.

mod change;
mod client;
mod frame;
mod process;

pub use client::Process;
#[cfg(test)]
pub(crate) use process::Hello;
pub use process::serve;

use crate::nameserver::NameServer;
use crate::port::Sockets;
use discovery::{Here, Knowledge};
use scope::Scope;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::timeout;

/// What the name server shall hold. Everything follows from it: which sockets are open, and what is
/// answered on each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct State {
    pub(crate) stamp: Stamp,
    pub(crate) known: Knowledge,
    /// A sandbox whose `dns_port` is 0 is new: sockets that are open in its name are in a
    /// namespace of former times.
    pub(crate) here: Here,
}

/// Tells states apart, also those of different daemons.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stamp {
    /// Drawn by each daemon.
    pub(crate) author: u64,
    /// Counts up.
    pub(crate) number: u64,
}

/// What the name server holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Held {
    /// The state that it has followed.
    pub(crate) stamp: Stamp,
    /// The port of each container that is served.
    pub(crate) ports: BTreeMap<String, u16>,
    /// Why the others are not served. They are tried again.
    pub(crate) failed: BTreeMap<String, String>,
}

/// The way to the name server.
#[derive(Debug)]
pub struct Names {
    author: u64,
    wanted: watch::Sender<Option<State>>,
    held: watch::Receiver<Held>,
}

impl Names {
    /// Runs a name server in this process, in `scope`.
    pub async fn here<S: Sockets>(sockets: S, resolv_conf: &Path, scope: &mut Scope) -> Self {
        let (wanted, orders) = watch::channel(None);
        let (report, held) = watch::channel(Held::default());
        let server = NameServer::open(sockets, resolv_conf, scope.token()).await;
        scope.spawn("name server", server.run(orders, report));
        Self { author: rand::random(), wanted, held }
    }

    /// Reaches a name server that is a process of its own and listens at `socket`. Whenever it is
    /// not there, `process` starts it, and it is told everything again.
    pub fn at(socket: PathBuf, process: impl Process, scope: &mut Scope) -> Self {
        let (wanted, orders) = watch::channel(None);
        let (report, held) = watch::channel(Held::default());
        let client = client::Client::new(socket, process, scope.token());
        scope.spawn("way to the name server", client.run(orders, report));
        Self { author: rand::random(), wanted, held }
    }

    /// Says what it shall hold from now on.
    pub(crate) fn publish(&self, known: Knowledge, here: Here) {
        let number = self.stamp().number + 1;
        let stamp = Stamp { author: self.author, number };
        self.wanted.send_replace(Some(State { stamp, known, here }));
    }

    /// Corrects what it would be told if it started anew. It holds this already.
    pub(crate) fn note(&self, here: &Here) {
        self.wanted.send_if_modified(|wanted| {
            if let Some(state) = wanted {
                state.here.clone_from(here);
            }
            false
        });
    }

    /// Says whether this is what it was told last.
    pub(crate) fn is_published(&self, known: &Knowledge, here: &Here) -> bool {
        let wanted = self.wanted.borrow();
        wanted.as_ref().is_some_and(|state| state.known == *known && state.here == *here)
    }

    /// The knowledge that it was told last.
    pub(crate) fn published(&self) -> Option<Knowledge> {
        self.wanted.borrow().as_ref().map(|state| state.known.clone())
    }

    /// What it holds, if it has followed what it was told last. From now on this counts as seen.
    pub(crate) fn held(&mut self) -> Option<Held> {
        let stamp = self.stamp();
        Some(self.held.borrow_and_update().clone()).filter(|held| held.stamp == stamp)
    }

    /// Waits until it holds what it was told last, but not for ever.
    pub(crate) async fn hold(&mut self, patience: Duration) -> Option<Held> {
        let stamp = self.stamp();
        let reached = self.held.wait_for(|held| held.stamp == stamp);
        let held = timeout(patience, reached).await.ok()?.ok()?;
        Some(held.clone())
    }

    /// Where news of it come in that were not seen yet.
    pub(crate) fn news(&self) -> watch::Receiver<Held> {
        self.held.clone()
    }

    /// The stamp of what it was told last.
    fn stamp(&self) -> Stamp {
        let start = Stamp { author: self.author, number: 0 };
        self.wanted.borrow().as_ref().map_or(start, |state| state.stamp)
    }
}
