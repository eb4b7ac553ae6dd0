//! Sends the logs of tasks to the manager that asked for them.
//!
//! Each log has a connection of its own. Whoever reads slowly fills the window of the whole
//! connection, and on the session's that would hold up heartbeats and reports.

use ca::Identity;
use engine::{Engine, LogEntry};
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream, StreamExt};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use types::{Fault, NodeId, TaskId};
use wire::{DispatcherClient, LogChunk, LogLine, LogRequest, dispatcher_client};

/// Lines in one message; fewer where they come slowly.
const LINES: usize = 256;
/// Bytes of text after which a message is full. The manager takes much longer ones.
const BYTES: usize = 1 << 20;
/// Messages that wait to be sent. Reading waits when it is full.
const CHUNKS: usize = 8;
/// For a manager to hear that a log cannot be sent.
const REFUSAL_MAX: Duration = Duration::from_secs(10);

type Entries = BoxStream<'static, (TaskId, Result<LogEntry, Fault>)>;

/// What logs come from and where they go.
#[derive(Clone)]
pub(crate) struct Publisher {
    pub(crate) engine: Engine,
    pub(crate) identity: Arc<Identity>,
    /// The manager's.
    pub(crate) address: String,
    /// The session's own, for a few words only.
    pub(crate) session: DispatcherClient<Channel>,
}

impl Publisher {
    /// Sends what a request asks for, until there is no more or nobody wants it.
    pub(crate) async fn publish(self, request: LogRequest) {
        match self.connect().await {
            Ok(client) => send(self.engine, self.identity.node_id(), request, client).await,
            Err(fault) => self.refuse(request.subscription, fault.message).await,
        }
    }

    /// A connection that ends with the log.
    async fn connect(&self) -> Result<DispatcherClient<Channel>, Fault> {
        let config = ca::tls::client_config(&self.identity)?;
        Ok(dispatcher_client(ca::connect(&self.address, config).await?))
    }

    /// Says why there is nothing, so that nobody waits for it.
    pub(crate) async fn refuse(mut self, subscription: String, error: String) {
        tracing::warn!(error, "a log cannot be sent to the manager that asked for it");
        let end = LogChunk { subscription, end: true, error, ..LogChunk::default() };
        let call = self.session.publish_logs(stream::once(async { end }));
        match tokio::time::timeout(REFUSAL_MAX, call).await {
            Ok(Ok(_)) => {}
            Ok(Err(status)) => tracing::debug!(%status, "the manager does not hear why"),
            Err(_late) => tracing::debug!("the manager does not hear why in time"),
        }
    }
}

async fn send(
    engine: Engine,
    node: NodeId,
    request: LogRequest,
    mut client: DispatcherClient<Channel>,
) {
    let name = request.subscription.clone();
    // Boxed: the compiler cannot see through the future otherwise.
    let opened: BoxFuture<'static, (Entries, String)> = Box::pin(open(engine, request));
    let (entries, missing) = opened.await;
    let mut all = chunks(name, node, entries, missing);
    let (sender, receiver) = mpsc::channel(CHUNKS);
    let pump = async move {
        while let Some(chunk) = all.next().await {
            if sender.send(chunk).await.is_err() {
                return;
            }
        }
    };
    let call = client.publish_logs(ReceiverStream::new(receiver));
    tokio::pin!(call);
    let sent = tokio::select! {
        sent = &mut call => sent,
        () = pump => call.await,
    };
    if let Err(status) = sent {
        tracing::debug!(%status, "a manager does not want more of a log");
    }
}

/// Lines as they come, then the end.
fn chunks(
    name: String,
    node: NodeId,
    entries: Entries,
    missing: String,
) -> BoxStream<'static, LogChunk> {
    let last = name.clone();
    let lines = entries
        .ready_chunks(LINES)
        .flat_map(|batch| stream::iter(portions(batch)))
        .map(move |batch| chunk(&name, &node, batch));
    let end = LogChunk { subscription: last, end: true, error: missing, ..LogChunk::default() };
    lines.chain(stream::once(async { end })).boxed()
}

/// Cuts lines into as many messages as their length asks for.
fn portions<T>(batch: Vec<(T, Result<LogEntry, Fault>)>) -> Vec<Vec<(T, Result<LogEntry, Fault>)>> {
    let (mut portions, mut bytes) = (Vec::new(), BYTES);
    for line in batch {
        if BYTES <= bytes {
            portions.push(Vec::new());
            bytes = 0;
        }
        bytes += line.1.as_ref().map_or(0, |entry| entry.bytes.len());
        if let Some(portion) = portions.last_mut() {
            portion.push(line);
        }
    }
    portions
}

/// Opens the logs; says which are missing.
async fn open(engine: Engine, request: LogRequest) -> (Entries, String) {
    let all = engine.list(true).await;
    let containers: BTreeMap<TaskId, String> =
        all.into_iter().filter_map(|info| Some((info.config.task()?, info.id))).collect();
    let wanted = &request.options;
    let options = engine::LogOptions {
        follow: wanted.follow,
        stdout: wanted.stdout,
        stderr: wanted.stderr,
        tail: wanted.tail,
        since: wanted.since,
        until: wanted.until,
    };
    let mut logs: Vec<Entries> = Vec::new();
    let mut missing = Vec::new();
    for task in request.tasks {
        let Some(container) = containers.get(&task) else { continue };
        match engine.logs(container, options.clone()) {
            Ok(log) => {
                logs.push(log.map(move |entry| (task.clone(), entry)).boxed());
            }
            Err(fault) => missing.push(format!("task {task}: {fault}")),
        }
    }
    (stream::select_all(logs).boxed(), missing.join("; "))
}

fn chunk(
    subscription: &str,
    node: &NodeId,
    batch: Vec<(TaskId, Result<LogEntry, Fault>)>,
) -> LogChunk {
    let mut chunk = LogChunk { subscription: subscription.to_owned(), ..LogChunk::default() };
    for (task, entry) in batch {
        match entry {
            Ok(entry) => chunk.lines.push(LogLine {
                task,
                node: node.clone(),
                stderr: entry.stderr,
                time: entry.time,
                text: entry.bytes.to_vec(),
            }),
            Err(fault) => chunk.error = format!("task {task}: {fault}"),
        }
    }
    chunk
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lines_make_more_messages_and_none_is_lost() {
        let line = |length| {
            let bytes = vec![b'x'; length].into();
            let time = types::Timestamp::default();
            ((), Ok(LogEntry { stderr: false, time, bytes }))
        };
        let batch = (0..20).map(|_| line(256 << 10)).chain([line(1)]).collect();
        let sizes: Vec<usize> = portions::<()>(batch).iter().map(Vec::len).collect();
        assert_eq!(sizes, [4, 4, 4, 4, 4, 1]);
        assert!(portions::<()>(Vec::new()).is_empty());
    }
}
