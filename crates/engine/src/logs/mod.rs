//! Logs of containers: JSON lines in files that rotate, and what is sent elsewhere (`remote`).
//!
//! The pump (`pump`) cuts output into lines (`split`) and appends them (`file`);
//! any number of readers (`read`) follow over rotations without holding the writer up.
//!
//! Invariants: a line is written whole or not at all. A full disk loses lines, which are counted,
//! and never holds a container up. A reader that was told of the end has had every line.

mod file;
mod line;
mod options;
mod read;
mod remote;
mod source;
mod split;
#[cfg(test)]
mod tests;

pub(crate) use file::{Limits, LogFile};
pub(crate) use line::stamp;
pub use options::DRIVERS;
pub(crate) use options::Options;
pub(crate) use read::read;
pub(crate) use remote::{Courier, Link, Remote};
pub(crate) use source::LoggedContainer;
pub(crate) use split::Lines;

use bytes::Bytes;
use tokio_stream::wrappers::ReceiverStream;
use types::{Fault, Timestamp};

/// Lines in order. Ends at the end of the log, or with `follow` when the container has ended.
pub type LogStream = ReceiverStream<Result<LogEntry, Fault>>;

/// A line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    pub stderr: bool,
    pub time: Timestamp,
    /// With its line end, if it had one.
    pub bytes: Bytes,
}

/// Which lines are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogOptions {
    pub follow: bool,
    pub stdout: bool,
    pub stderr: bool,
    /// The last lines only; `None`: all.
    pub tail: Option<u64>,
    pub since: Option<Timestamp>,
    pub until: Option<Timestamp>,
}

impl LogOptions {
    fn wants(&self, entry: &LogEntry) -> bool {
        let stream = if entry.stderr { self.stderr } else { self.stdout };
        stream
            && self.since.is_none_or(|since| since <= entry.time)
            && self.until.is_none_or(|until| entry.time <= until)
    }

    /// Says whether no later line can be wanted.
    fn is_past(&self, entry: &LogEntry) -> bool {
        self.until.is_some_and(|until| until < entry.time)
    }
}
