//! Logs of containers.

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
