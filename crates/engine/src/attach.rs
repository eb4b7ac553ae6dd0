//! Clients that are connected to a container's standard streams.

use crate::container::Container;
use crate::engine::Engine;
use crate::exec::{AttachOptions, Attached, CHUNKS, Chunk};
use crate::fifo;
use crate::info::Status;
use crate::logs::{self, LogEntry, LogOptions};
use crate::taps::Tap;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, DuplexStream};
use tokio::sync::mpsc;
use types::{Fault, FaultKind};

/// What a client may have sent before it is read.
const INPUT: usize = 64 << 10;

impl Engine {
    /// Connects to the container's standard streams; it may start later.
    #[expect(clippy::unused_async, reason = "like the other calls; it may wait one day")]
    pub async fn attach(&self, name: &str, options: AttachOptions) -> Result<Attached, Fault> {
        let container = self.find(name)?;
        container.tell(&self.inner.events, "attach", &[]);
        let (sink, output) = mpsc::channel(CHUNKS);
        let AttachOptions { stdout, stderr, .. } = options;
        match (&container.log, options.logs, options.stream) {
            (Some(log), true, follow) => {
                let (lines, entries) = mpsc::channel(CHUNKS);
                let wanted = LogOptions { follow, stdout, stderr, ..LogOptions::default() };
                let reading = logs::read(Arc::clone(log), wanted, lines);
                let token = self.inner.token.clone();
                self.inner.tracker.spawn(async move {
                    let both = async { tokio::join!(reading, hand_on(entries, sink)) };
                    token.run_until_cancelled(both).await;
                });
            }
            (_, _, true) => {
                let first = container.status() != Status::Running;
                let mut live = container.live();
                live.taps.retain(|tap| !tap.is_gone());
                live.taps.push(Tap::new(sink, options, first));
            }
            (_, _, false) => {}
        }
        let spec = &container.fixed.config.spec;
        let input = (options.stdin && spec.open_stdin).then(|| self.input(&container));
        Ok(Attached { tty: spec.tty, output, input })
    }

    /// Gives a client an input that reaches the container when it runs.
    fn input(&self, container: &Arc<Container>) -> DuplexStream {
        let (client, engine) = tokio::io::duplex(INPUT);
        let (feeder, container) = (self.clone(), Arc::clone(container));
        let token = self.inner.token.clone();
        self.inner.tracker.spawn(async move {
            let gone = container.gone.clone();
            let feeding = gone.run_until_cancelled(feeder.feed(&container, engine));
            token.run_until_cancelled(feeding).await;
        });
        client
    }

    async fn feed(&self, container: &Container, mut client: DuplexStream) {
        let mut state = container.state.subscribe();
        if state.wait_for(|state| state.status == Status::Running).await.is_err() {
            return;
        }
        let Some(pipe) = container.live().stdin.clone() else { return };
        let ended = async { drop(state.wait_for(|state| state.status != Status::Running).await) };
        let copying = async {
            let mut buffer = vec![0; 16 << 10];
            while let Ok(count) = client.read(&mut buffer).await {
                if count == 0 || fifo::write_all(&pipe, &buffer[..count]).await.is_err() {
                    break;
                }
            }
        };
        tokio::select! {
            () = copying => {}
            () = ended => return,
        }
        // A terminal stays open for the next client.
        let config = &container.fixed.config;
        if config.stdin_once && !config.spec.tty {
            drop(pipe);
            container.live().stdin = None;
            let closed = self.inner.runtime.close_stdin(container.id().to_owned(), None);
            // It may have ended meanwhile.
            if let Err(fault) = closed.await
                && fault.kind != FaultKind::NotFound
            {
                tracing::warn!(id = container.id(), %fault, "cannot end a container's input");
            }
        }
    }
}

async fn hand_on(mut entries: mpsc::Receiver<Result<LogEntry, Fault>>, sink: mpsc::Sender<Chunk>) {
    while let Some(entry) = entries.recv().await {
        let Ok(LogEntry { stderr, bytes, .. }) = entry else { return };
        if sink.send(Chunk { stderr, bytes }).await.is_err() {
            return;
        }
    }
}
