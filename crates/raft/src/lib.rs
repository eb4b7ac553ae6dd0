//! The replicated log: the one way by which the cluster's state changes.
//!
//! [`open`] starts a member's copy on a directory; [`Sequencer::sequence`] is the one writer: on the
//! manager that leads it takes closures that decide from a [`store::View`] what shall change, puts
//! them in one order, and answers when the change is on the disks of most managers and in the view.
//! It knows nothing of what the changes mean ([`store::rules`] does), nor of where managers are:
//! it knows them by number, and [`Peers`] brings its messages there.
//!
//! Start with `sequencer` (the handle) and `writer` (its loop), then `log` (what is written when) and
//! `disk` and `sealed` (the file). Between members: `network` asks, `receive` answers, `message` is what they say.
//! `leadership`, `transfer` and `membership` say who leads and who votes.
//!
//! Invariants: a change is acknowledged only after it is on most disks; a view holds nothing else
//! than what is; a closure sees every change that comes before its own, also those that another
//! leader has made; a batch of changes is one entry of the log, so all of it is kept or none;
//! entries' times never go back, also where a clock does or another manager leads.
//!
//! The log holds everything the store holds, the key of the root CA and secrets included. All of it
//! is sealed by a key that whoever opens it has (`sealed`), and its directory is readable by its owner
//! alone (0700, the file 0600).

mod alone;
mod clock;
mod consensus;
mod decide;
mod disk;
mod earlier;
#[cfg(test)]
mod formats;
mod free_space;
mod leadership;
mod log;
mod machine;
mod membership;
mod message;
mod network;
mod open;
mod receive;
mod restore;
mod sealed;
mod sequencer;
mod sizes;
#[cfg(test)]
mod suite;
mod tail;
mod transfer;
mod writer;

pub use clock::Time;
pub use decide::{Decide, Decided, Decisions, decide};
pub use disk::Keys;
pub use leadership::Leadership;
pub use membership::Members;
pub use network::{Alone, Peers};
pub use open::{Config, Start, open};
pub use restore::{read_state, restore, write_state};
pub use seal::Key;
pub use sequencer::Sequencer;
pub use tail::{LogContent, LogEntry};

use std::io;
use std::path::PathBuf;
use store::Format;

/// The number of the member that makes a cluster.
pub const FIRST_MEMBER: u64 = 1;

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
        source: io::Error,
    },
    #[error(
        "the log {} is sealed by another key than this node has: was it or the key brought from \
         elsewhere?",
        path.display()
    )]
    Sealed { path: PathBuf },
    #[error("cannot seal the log {} by the node's key: is the disk full?", path.display())]
    Replace {
        path: PathBuf,
        #[source]
        source: io::Error,
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
    #[error("there is a log in {} already", path.display())]
    NotEmpty { path: PathBuf },
    #[error("the log in {} is that of manager {holder}, not of manager {member}", path.display())]
    Member { path: PathBuf, holder: u64, member: u64 },
    #[error(
        "the log of this manager is missing in {}: remove the manager from the cluster and have the \
         machine join again",
        path.display()
    )]
    Lost { path: PathBuf },
    #[error("cannot read the log")]
    Read(#[source] io::Error),
    #[error("this node did not become the leader of its own log: {0}")]
    NoLeader(String),
    #[error("the log stopped: {0}")]
    Stopped(String),
}
