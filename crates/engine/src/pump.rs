//! Carries what a container writes to its log and to the clients that are attached.
//!
//! Invariant: what is read is in the log before a client has it. The container is held up only as
//! long as a piece is being written to the disk, by its clients as `taps` says, and by whom its lines are
//! sent to, where its log driver says so (`logs::remote`).

use crate::container::{Container, Pump};
use crate::exec::Chunk;
use crate::fifo::Output;
use crate::logs::{Courier, Lines, Link, LogEntry, stamp};
use crate::taps::Tap;
use crate::{clock, stand_in};
use bytes::Bytes;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Starts to carry. When `shutdown` is cancelled the engine stops, and the container goes on.
pub(crate) fn start(
    container: &Arc<Container>,
    (output, link): (Output, Option<Link>),
    tracker: &TaskTracker,
    shutdown: CancellationToken,
) {
    let finish = CancellationToken::new();
    let ended = finish.child_token();
    let remote = container.remote.as_ref();
    let courier = remote.map(|remote| remote.courier(link, tracker, shutdown.clone()));
    let carrier = Carrier {
        container: Arc::clone(container),
        courier,
        output,
        taps: Vec::new(),
        tracker: tracker.clone(),
        ended: ended.clone(),
        shutdown,
        stdout: Lines::default(),
        stderr: Lines::default(),
    };
    let done = tracker.spawn(carrier.run(finish.clone()));
    container.live().pump = Some(Pump { ended, finish, done });
}

struct Carrier {
    container: Arc<Container>,
    /// Takes lines to where they are sent.
    courier: Option<Courier>,
    output: Output,
    taps: Vec<Tap>,
    tracker: TaskTracker,
    ended: CancellationToken,
    shutdown: CancellationToken,
    stdout: Lines,
    stderr: Lines,
}

impl Carrier {
    async fn run(mut self, finish: CancellationToken) {
        self.catch_up().await;
        loop {
            tokio::select! {
                biased;
                () = self.shutdown.cancelled() => break self.flush().await,
                () = finish.cancelled() => break self.end().await,
                chunk = self.output.next() => match chunk {
                    Ok(chunk) => self.carry(chunk).await,
                    Err(error) => {
                        let id = self.container.id();
                        tracing::error!(id, %error, "output of a container is lost");
                        break self.end().await;
                    }
                },
            }
        }
    }

    /// First comes what was put aside while no engine ran.
    async fn catch_up(&mut self) {
        let stdio = self.container.stdio();
        for (path, stderr) in [(stdio.stdout, false), (stdio.stderr, true)] {
            let Some(path) = path else { continue };
            let taken = tokio::task::spawn_blocking(move || stand_in::take(&path)).await;
            match taken {
                Ok(Ok(text)) if text.is_empty() => {}
                Ok(Ok(text)) => self.carry(Chunk { stderr, bytes: text.into() }).await,
                failed => {
                    tracing::warn!(id = self.container.id(), ?failed, "output is lost");
                }
            }
        }
    }

    /// Takes the rest, and closes the log and the clients.
    async fn end(&mut self) {
        while let Some(chunk) = self.output.take() {
            self.carry(chunk).await;
        }
        self.flush().await;
        for tap in self.taps.drain(..) {
            let shutdown = self.shutdown.clone();
            self.tracker.spawn(async move { shutdown.run_until_cancelled(tap.finish()).await });
        }
        close(&self.container);
    }

    async fn carry(&mut self, chunk: Chunk) {
        let lines = if chunk.stderr { &mut self.stderr } else { &mut self.stdout };
        let lines = lines.feed(&chunk.bytes);
        self.write(stamp(lines, chunk.stderr, clock::now())).await;
        self.send(chunk).await;
    }

    async fn flush(&mut self) {
        let rest =
            |lines: Option<Bytes>, stderr| stamp(lines.into_iter().collect(), stderr, clock::now());
        let entries = [rest(self.stdout.rest(), false), rest(self.stderr.rest(), true)].concat();
        self.write(entries).await;
    }

    async fn write(&self, entries: Vec<LogEntry>) {
        if entries.is_empty() {
            return;
        }
        if let Some(log) = self.container.log.as_ref().map(Arc::clone) {
            let kept = entries.clone();
            let written = tokio::task::spawn_blocking(move || log.append(&kept)).await;
            if let Err(panic) = written {
                tracing::error!(%panic, "lines of a container's log were lost");
            }
        }
        if let Some(courier) = &self.courier {
            // A container that has ended, and a daemon that ends, wait for no receiver.
            let hurry = async {
                tokio::select! {
                    () = self.ended.cancelled() => {}
                    () = self.shutdown.cancelled() => {}
                }
            };
            courier.take(entries, hurry).await;
        }
    }

    async fn send(&mut self, chunk: Chunk) {
        self.taps.append(&mut self.container.live().taps);
        self.taps.retain(|tap| !tap.is_gone());
        for tap in &mut self.taps {
            self.shutdown.run_until_cancelled(tap.send(&chunk, &self.ended)).await;
        }
    }
}

/// Tells readers of the log and clients that there is no more.
pub(crate) fn close(container: &Container) {
    if let Some(log) = &container.log {
        log.close();
    }
    container.live().taps.clear();
}
