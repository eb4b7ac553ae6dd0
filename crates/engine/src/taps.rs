//! Clients that read a container's output as it comes.
//!
//! Who was there before the start is the one the container runs for (`docker run`): it holds the
//! container up like the reader of a pipe. Who came later holds it up for [`PATIENCE`] and then
//! misses what it has no room for, of which it is told. Neither is cut. After the container's end
//! nobody is waited for: what is left is no more than pipes hold, and is kept for each client.

use crate::exec::{AttachOptions, Chunk};
use bytes::Bytes;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// For a client that came later and does not read.
pub(crate) const PATIENCE: Duration = Duration::from_secs(1);

/// A client that reads output as it comes.
#[derive(Debug)]
pub(crate) struct Tap {
    sink: mpsc::Sender<Chunk>,
    stdout: bool,
    stderr: bool,
    /// It was there before the container started.
    first: bool,
    /// Bytes that it missed since it last read.
    missed: usize,
    /// What it has not had when the container ended.
    rest: Vec<Chunk>,
}

impl Tap {
    /// A client that wants these streams; `first` where it was there before the start.
    pub(crate) fn new(sink: mpsc::Sender<Chunk>, options: AttachOptions, first: bool) -> Self {
        let AttachOptions { stdout, stderr, .. } = options;
        Self { sink, stdout, stderr, first, missed: 0, rest: Vec::new() }
    }

    /// Says whether the client has gone.
    pub(crate) fn is_gone(&self) -> bool {
        self.sink.is_closed()
    }

    /// Hands on a piece if it is wanted. With `ended` the container has ended.
    pub(crate) async fn send(&mut self, chunk: &Chunk, ended: &CancellationToken) {
        let wanted = if chunk.stderr { self.stderr } else { self.stdout };
        if !wanted || self.is_gone() {
            return;
        }
        if ended.is_cancelled() {
            return self.keep(chunk);
        }
        let sink = self.sink.clone();
        if 0 < self.missed {
            // It was waited for once, and is not waited for with every piece.
            let Ok(permit) = sink.try_reserve() else {
                self.missed += chunk.bytes.len();
                return;
            };
            permit.send(self.note());
        }
        let permit = async {
            if self.first {
                return sink.reserve().await.ok();
            }
            tokio::time::timeout(PATIENCE, sink.reserve()).await.ok()?.ok()
        };
        match ended.run_until_cancelled(permit).await {
            None => self.keep(chunk),
            Some(None) => self.missed += chunk.bytes.len(),
            Some(Some(permit)) => permit.send(chunk.clone()),
        }
    }

    fn keep(&mut self, chunk: &Chunk) {
        if 0 < self.missed {
            let note = self.note();
            self.rest.push(note);
        }
        self.rest.push(chunk.clone());
    }

    /// Tells what was missed.
    fn note(&mut self) -> Chunk {
        let missed = std::mem::take(&mut self.missed);
        let text =
            format!("[{missed} bytes were left out here: this client did not read them]\r\n");
        Chunk { stderr: self.stderr, bytes: Bytes::from(text) }
    }

    /// Hands on what was kept, as fast as the client reads; then the client sees the end.
    pub(crate) async fn finish(mut self) {
        if 0 < self.missed {
            let note = self.note();
            self.rest.push(note);
        }
        for chunk in self.rest {
            if self.sink.send(chunk).await.is_err() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    fn chunk(text: &'static str) -> Chunk {
        Chunk { stderr: false, bytes: Bytes::from_static(text.as_bytes()) }
    }

    #[tokio::test]
    async fn what_was_missed_is_told_before_the_next_piece() {
        let (sink, mut client) = mpsc::channel(1);
        let options = AttachOptions { stdout: true, ..AttachOptions::default() };
        let (mut tap, ended) = (Tap::new(sink, options, false), CancellationToken::new());
        tap.send(&chunk("kept"), &ended).await;
        tap.send(&chunk("lost"), &ended).await;
        // It was waited for once. The next piece waits for no room, so that none comes before the note.
        assert!(tap.send(&chunk("lost too"), &ended).now_or_never().is_some());
        assert_eq!(client.recv().await.unwrap().bytes, "kept");
        let _ = tap.send(&chunk("the last"), &ended).now_or_never();
        assert_eq!(client.recv().await.unwrap().bytes, tap_note(12));
    }

    fn tap_note(missed: usize) -> String {
        format!("[{missed} bytes were left out here: this client did not read them]\r\n")
    }
}
