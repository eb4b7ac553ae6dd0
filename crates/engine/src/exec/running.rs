//! A process that goes on: its output and its end.

use super::{Chunk, KILLED, PAUSE};
use crate::clock;
use crate::fifo::Output;
use crate::runtime::{Exit, Runtime};
use futures_util::future::BoxFuture;
use std::sync::Arc;
use types::FaultKind;

/// A process whose output is read until it has ended.
pub(crate) struct Running {
    ended: BoxFuture<'static, Exit>,
    output: Option<Output>,
    exit: Option<Exit>,
}

/// What comes of a process.
pub(crate) enum Piece {
    Output(Chunk),
    /// The last one.
    Ended(Exit),
}

impl Running {
    pub(crate) fn new(
        runtime: &Arc<dyn Runtime>,
        container: &str,
        exec: &str,
        output: Option<Output>,
    ) -> Self {
        let ended = wait(Arc::clone(runtime), container.to_owned(), exec.to_owned());
        Self { ended: Box::pin(ended), output, exit: None }
    }

    /// Waits for what comes next. Loses nothing when it is dropped before it is ready.
    pub(crate) async fn next(&mut self) -> Piece {
        while self.exit.is_none() {
            let Some(output) = &mut self.output else {
                self.exit = Some((&mut self.ended).await);
                break;
            };
            tokio::select! {
                exit = &mut self.ended => self.exit = Some(exit),
                chunk = output.next() => match chunk {
                    Ok(chunk) => return Piece::Output(chunk),
                    Err(error) => {
                        tracing::warn!(%error, "output of a process is lost");
                        self.output = None;
                    }
                },
            }
        }
        match self.output.as_mut().and_then(Output::take) {
            Some(chunk) => Piece::Output(chunk),
            None => Piece::Ended(self.exit.unwrap_or_default()),
        }
    }
}

/// With its container, a process is killed.
async fn wait(runtime: Arc<dyn Runtime>, container: String, exec: String) -> Exit {
    loop {
        match runtime.exec_wait(container.clone(), exec.clone()).await {
            Ok(exit) => return exit,
            Err(fault) if fault.kind == FaultKind::Unavailable => tokio::time::sleep(PAUSE).await,
            Err(fault) => {
                tracing::debug!(container, %fault, "a process went with its container");
                return Exit { code: KILLED, at: clock::now() };
            }
        }
    }
}
