//! Sends the logs of tasks to the manager that asked for them.

use crate::container::TASK_LABEL;
use engine::{Engine, LogEntry};
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream, StreamExt};
use std::collections::BTreeMap;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use types::{Fault, NodeId, TaskId};
use wire::{DispatcherClient, LogChunk, LogLine, LogRequest};

/// Lines in one message; fewer where they come slowly.
const LINES: usize = 256;
/// Messages that wait to be sent. Reading waits when it is full.
const CHUNKS: usize = 8;

type Entries = BoxStream<'static, (TaskId, Result<LogEntry, Fault>)>;

/// Sends what a request asks for, until there is no more or nobody wants it.
pub(crate) async fn publish(
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
    let lines = entries.ready_chunks(LINES).map(move |batch| chunk(&name, &node, batch));
    let end = LogChunk { subscription: last, end: true, error: missing, ..LogChunk::default() };
    lines.chain(stream::once(async { end })).boxed()
}

/// Opens the logs; says which are missing.
async fn open(engine: Engine, request: LogRequest) -> (Entries, String) {
    let all = engine.list(true).await;
    let containers: BTreeMap<TaskId, String> = all
        .into_iter()
        .filter_map(|info| {
            let task = info.config.spec.labels.get(TASK_LABEL)?;
            Some((TaskId::from(task.as_str()), info.id))
        })
        .collect();
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
