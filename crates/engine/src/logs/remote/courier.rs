//! Carries the lines of one container to their receiver.

use super::{Link, LogEntry, Part, Protocol, Remote};
use crate::logs::{line, split};
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use types::Labels;

/// What waits where output waits for the receiver.
const WAITING: u64 = 256 << 10;
/// What waits at most, whatever an option says: it is memory of the daemon.
const WAITING_MAX: u64 = 64 << 20;
/// What is put aside when the daemon ends, where no more may wait.
const UNSENT: u64 = 1 << 20;
/// What a line takes beside its text.
const ENTRY: usize = 128;
/// How long a container that has ended keeps its last lines waiting.
const LINGER: Duration = Duration::from_secs(10);
const PAUSE_MAX: Duration = Duration::from_mins(1);

/// Takes lines.
#[derive(Debug)]
pub(crate) struct Courier {
    parcels: UnboundedSender<Parcel>,
    bytes: Arc<Semaphore>,
    events: Arc<Semaphore>,
    capacity: u32,
    /// Output waits for a place in the queue.
    waits: bool,
    dropped: Arc<AtomicU64>,
    /// Cancels `ended` of the worker.
    _ended: DropGuard,
}

/// A line with its place in the queue; one that comes when the container ends may have none.
#[derive(Debug)]
struct Parcel {
    entry: LogEntry,
    _place: Option<(OwnedSemaphorePermit, OwnedSemaphorePermit)>,
}

impl Remote {
    /// Starts to carry; `link`: a connection that there is already.
    pub(crate) fn courier(
        self: &Arc<Self>,
        link: Option<Link>,
        tracker: &TaskTracker,
        shutdown: CancellationToken,
    ) -> Courier {
        let (parcels, receiver) = unbounded_channel();
        let (dropped, ended) = (Arc::default(), CancellationToken::new());
        let (capacity, events, waits) = match &self.protocol {
            Protocol::Fluentd(it) if it.is_async => (WAITING_MAX, it.buffer, false),
            _ => (self.buffer.unwrap_or(WAITING), u64::MAX, self.buffer.is_none()),
        };
        let capacity = u32::try_from(capacity.min(WAITING_MAX)).unwrap_or(u32::MAX);
        let events = usize::try_from(events).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        let worker = Worker {
            remote: Arc::clone(self),
            link: link.map(|link| (link, now())),
            parts: Parts::default(),
            number: 0,
            lost: 0,
            dropped: Arc::clone(&dropped),
            unsent_max: u64::from(capacity).max(UNSENT),
        };
        tracker.spawn(worker.run(receiver, ended.clone(), shutdown));
        let bytes = Arc::new(Semaphore::new(usize::try_from(capacity).unwrap_or_default()));
        let events = Arc::new(Semaphore::new(events));
        Courier { parcels, bytes, events, capacity, waits, dropped, _ended: ended.drop_guard() }
    }
}

impl Remote {
    /// Sends what the last daemon put aside of a container that has ended: it has no other courier.
    pub(crate) async fn send_unsent(
        self: &Arc<Self>,
        tracker: &TaskTracker,
        shutdown: CancellationToken,
    ) {
        if tokio::fs::try_exists(&self.unsent).await.unwrap_or(false) {
            drop(self.courier(None, tracker, shutdown));
        }
    }
}

impl Courier {
    /// Takes lines. Where output waits for the receiver, it does so until `hurry`.
    pub(crate) async fn take(&self, entries: Vec<LogEntry>, hurry: impl Future<Output = ()>) {
        let mut hurry = std::pin::pin!(hurry);
        let mut in_a_hurry = false;
        for entry in entries {
            let cost = u32::try_from(entry.bytes.len() + ENTRY).unwrap_or(u32::MAX);
            let place = if in_a_hurry { None } else { self.place(cost.min(self.capacity)) };
            let place = match place {
                Some(place) => Some(place),
                None if !self.waits => {
                    self.dropped.fetch_add(1, Ordering::Relaxed);
                    continue;
                }
                None if in_a_hurry => None,
                None => tokio::select! {
                    place = self.wait(cost.min(self.capacity)) => place,
                    () = &mut hurry => {
                        in_a_hurry = true;
                        None
                    }
                },
            };
            // The worker outlives this.
            let _ended = self.parcels.send(Parcel { entry, _place: place });
        }
    }

    /// Lines that found no place and of which nothing has been said yet.
    #[cfg(test)]
    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    fn place(&self, cost: u32) -> Option<(OwnedSemaphorePermit, OwnedSemaphorePermit)> {
        let event = Arc::clone(&self.events).try_acquire_owned().ok()?;
        let bytes = Arc::clone(&self.bytes).try_acquire_many_owned(cost).ok()?;
        Some((event, bytes))
    }

    async fn wait(&self, cost: u32) -> Option<(OwnedSemaphorePermit, OwnedSemaphorePermit)> {
        let event = Arc::clone(&self.events).acquire_owned().await.ok()?;
        let bytes = Arc::clone(&self.bytes).acquire_many_owned(cost).await.ok()?;
        Some((event, bytes))
    }
}

struct Worker {
    remote: Arc<Remote>,
    /// With when it began.
    link: Option<(Link, Instant)>,
    parts: Parts,
    /// Counts messages.
    number: u64,
    /// Lines lost since the last one that was sent.
    lost: u64,
    /// And those for which there was no place.
    dropped: Arc<AtomicU64>,
    /// What is put aside at most.
    unsent_max: u64,
}

impl Worker {
    /// Sends until the container has ended, or the daemon ends.
    async fn run(
        mut self,
        mut parcels: UnboundedReceiver<Parcel>,
        ended: CancellationToken,
        shutdown: CancellationToken,
    ) {
        let too_late = async {
            ended.cancelled().await;
            tokio::time::sleep(LINGER).await;
        };
        let mut too_late = std::pin::pin!(too_late);
        let path = self.remote.unsent.clone();
        let first = tokio::task::spawn_blocking(move || take_unsent(&path)).await;
        let mut first = first.unwrap_or_default().into_iter();
        let rest = loop {
            let entry = match first.next() {
                Some(entry) => entry,
                None => match parcels.recv().await {
                    Some(Parcel { entry, _place }) => entry,
                    None => break Vec::new(),
                },
            };
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break vec![entry],
                () = &mut too_late => break vec![entry],
                () = self.deliver(&entry) => {}
            }
        };
        let mut rest: Vec<LogEntry> = rest.into_iter().chain(first).collect();
        while let Some(parcel) = parcels.recv().await {
            rest.push(parcel.entry);
        }
        if shutdown.is_cancelled() {
            let (path, count, limit) = (self.remote.unsent.clone(), rest.len(), self.unsent_max);
            let kept = tokio::task::spawn_blocking(move || keep_unsent(&path, &rest, limit)).await;
            self.lost += match kept {
                Ok(Ok(lost)) => u64::from(lost),
                Ok(Err(_)) | Err(_) => u64::try_from(count).unwrap_or_default(),
            };
        } else {
            self.lost += u64::try_from(rest.len()).unwrap_or_default();
        }
        self.tell_lost();
    }

    async fn deliver(&mut self, entry: &LogEntry) {
        self.number += 1;
        let part = self.parts.next(entry, self.number);
        let protocol = &self.remote.protocol;
        let message = protocol.message(&self.remote.source, (entry, part.as_ref()), self.number);
        if message.pieces.is_empty() {
            return;
        }
        let patience = protocol.patience();
        let mut pause = patience.pause;
        let mut again = patience.again;
        loop {
            let error = match self.attempt(&message).await {
                Ok(()) => return self.tell_lost(),
                Err(error) => error,
            };
            if again == patience.again && self.lost == 0 {
                let (id, why) = (&self.remote.source.id, &error);
                tracing::warn!(id, error = %why, "a line of a container's log is not sent yet");
            }
            if again == 0 {
                self.lost += 1;
                return;
            }
            again -= 1;
            tokio::time::sleep(pause.min(PAUSE_MAX)).await;
            // It may be long before a line gets through.
            if 0 < self.dropped.load(Ordering::Relaxed) {
                self.tell_lost();
            }
            if patience.grows {
                pause = pause.saturating_mul(3) / 2;
            }
        }
    }

    async fn attempt(&mut self, message: &super::Message) -> io::Result<()> {
        let (write_max, renewed_after) = self.remote.protocol.limits();
        let is_old = |since: Instant| renewed_after.is_some_and(|limit| limit < since.elapsed());
        let (mut link, since) = match self.link.take() {
            Some((link, since)) if !is_old(since) => (link, since),
            Some(_) | None => (self.remote.open().await?, now()),
        };
        link.send(message, write_max).await?;
        self.link = Some((link, since));
        Ok(())
    }

    fn tell_lost(&mut self) {
        let lost = self.lost + self.dropped.swap(0, Ordering::Relaxed);
        self.lost = 0;
        if 0 < lost {
            let id = &self.remote.source.id;
            tracing::warn!(id, lines = lost, "lines of a container's log were lost on their way");
        }
    }
}

/// Which pieces of long lines have come, of stdout and of stderr.
#[derive(Debug, Default)]
pub(super) struct Parts {
    open: BTreeMap<bool, (String, u32)>,
}

impl Parts {
    pub(super) fn next(&mut self, entry: &LogEntry, number: u64) -> Option<Part> {
        let last = !split::is_piece(&entry.bytes);
        let (id, ordinal) = match self.open.remove(&entry.stderr) {
            Some((id, ordinal)) => (id, ordinal + 1),
            None if last => return None,
            None => (format!("{:x}{number:x}", entry.time.0), 1),
        };
        if !last {
            self.open.insert(entry.stderr, (id.clone(), ordinal));
        }
        Some(Part { id, ordinal, last })
    }
}

/// Puts lines aside for the next daemon, the newest ones of so many bytes. Says how many did not fit.
pub(super) fn keep_unsent(path: &Path, entries: &[LogEntry], limit: u64) -> io::Result<u32> {
    if entries.is_empty() {
        return Ok(0);
    }
    let mut options = fs::OpenOptions::new();
    let mut file = options.create(true).append(true).mode(0o600).open(path)?;
    let before = file.metadata()?.len();
    // Half a line that was left where the disk was full ends here.
    let end = if 0 < before { "\n" } else { "" };
    let mut room = usize::try_from(limit.saturating_sub(before)).unwrap_or(usize::MAX);
    room = room.saturating_sub(end.len());
    let mut lines = Vec::new();
    for entry in entries.iter().rev() {
        let mut text = Vec::new();
        line::render(entry, &Labels::new(), &mut text);
        match room.checked_sub(text.len()) {
            Some(rest) => room = rest,
            None => break,
        }
        lines.push(text);
    }
    let lost = u32::try_from(entries.len() - lines.len()).unwrap_or(u32::MAX);
    lines.push(end.into());
    lines.reverse();
    file.write_all(&lines.concat())?;
    Ok(lost)
}

/// What the last daemon put aside.
pub(super) fn take_unsent(path: &Path) -> Vec<LogEntry> {
    let Ok(text) = fs::read(path) else { return Vec::new() };
    if let Err(error) = fs::remove_file(path) {
        tracing::warn!(path = %path.display(), %error, "lines may be sent twice");
    }
    text.split_inclusive(|byte| *byte == b'\n').filter_map(line::parse).collect()
}

#[expect(clippy::disallowed_methods, reason = "connections age beside what is decided")]
fn now() -> Instant {
    Instant::now()
}
