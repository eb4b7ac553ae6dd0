//! Logs of tasks, gathered from the nodes that hold them.

use crate::dispatch::Command;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use types::{Fault, ServiceId, TaskId};
use wire::{LogLine, LogOptions};

/// Lines that wait for the client. A node is held up when it is full.
const QUEUE: usize = 256;

/// Whose logs are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogSelector {
    Task(TaskId),
    /// All tasks of a service, also those that come later.
    Service(ServiceId),
}

/// Lines as they come, in order for each task. A fault says that a node's part is missing; the
/// stream goes on.
pub type LogStream = ReceiverStream<Result<LogLine, Fault>>;

/// Someone who wants logs.
#[derive(Debug)]
pub(crate) struct Subscription {
    pub(crate) selector: LogSelector,
    pub(crate) options: LogOptions,
    pub(crate) sink: mpsc::Sender<Result<LogLine, Fault>>,
}

pub(crate) async fn subscribe(
    commands: &mpsc::Sender<Command>,
    selector: LogSelector,
    options: LogOptions,
) -> Result<LogStream, Fault> {
    let (sink, lines) = mpsc::channel(QUEUE);
    let subscription = Subscription { selector, options, sink };
    commands
        .send(Command::Subscribe(subscription))
        .await
        .map_err(|_| Fault::unavailable("this manager is stopping"))?;
    Ok(ReceiverStream::new(lines))
}
