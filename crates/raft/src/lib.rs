//! The replicated log: the one way by which the cluster's state changes.
//!
//! [`open`] starts it on a directory; [`Sequencer::sequence`] is the one writer: it takes closures
//! that decide from a [`store::View`] what shall change, puts them in one order, and answers when
//! the change is on disk and in the view. It knows nothing of what the changes mean
//! ([`store::rules`] does) or of how managers reach each other (there is one; the place for the
//! others is `network`).
//!
//! Start with `sequencer`, then `log` (what is written when) and `disk` (the file).
//!
//! Invariants: a change is acknowledged only after it is on disk; a closure sees every change that
//! comes before its own; a batch of changes is one entry of the log, so all of it is kept or none;
//! entries' times never go back, also where a clock does.
//!
//! The log holds everything the store holds, the key of the root CA and secrets included, and is
//! not encrypted: its directory is readable by its owner alone (0700, the file 0600).

mod clock;
mod consensus;
mod decide;
mod disk;
#[cfg(test)]
mod formats;
mod free_space;
mod log;
mod machine;
mod network;
mod sequencer;
mod sizes;

pub use clock::Time;
pub use decide::{Decide, Decided, Decisions, decide};
pub use sequencer::{Config, Sequencer, open};

use std::io;
use std::path::PathBuf;
use store::Format;

/// Why the log cannot be opened, or why it stopped.
#[derive(Debug, thiserror::Error)]
pub enum RaftError {
    #[error("cannot prepare the directory {} of the log", path.display())]
    Directory {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(
        "cannot open the log {}: {source} (another daemon on the same directory, or a damaged file?)",
        path.display()
    )]
    Open {
        path: PathBuf,
        #[source]
        source: Box<redb::Error>,
    },
    #[error(
        "{what} of the log {} has format {found}, and this release reads formats up to {known}: it \
         was written by a newer release, start that one again (nothing was changed)",
        path.display()
    )]
    Format { path: PathBuf, what: String, found: Format, known: Format },
    #[error(
        "cannot read {what} of the log {} (a damaged file, or was it written by a newer release?)",
        path.display()
    )]
    Unreadable {
        path: PathBuf,
        what: String,
        #[source]
        source: io::Error,
    },
    #[error("cannot read the log")]
    Read(#[source] io::Error),
    #[error("this node did not become the leader of its own log: {0}")]
    NoLeader(String),
    #[error("the log stopped: {0}")]
    Stopped(String),
}
