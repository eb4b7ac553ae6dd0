//! The log as the consensus library sees it.
//!
//! Entries are readable the moment [`append`](RaftLogStorage::append) returns, before they are on
//! disk: they wait in memory while one thread takes everything that is queued, writes it in one
//! transaction and syncs once (group commit). Only then the library hears that they are safe.
//!
//! What is committed is written with the next write, and after a pause by itself: a restarted
//! manager then shows what it has shown before, without hearing of the others first. It costs no
//! sync of its own while there is something to write.

use crate::consensus::{Consensus, Entry, LogId, Vote};
use crate::disk::{Disk, Found, Write, bytes, encode};
use crate::sizes::Sizes;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use openraft::{EntryPayload, OptionalSend, alias};
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use store::Format;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::DropGuard;

/// Writes that may wait for the disk.
const QUEUE: usize = 256;
/// Writes that are synced together at most.
const GROUP: usize = 64;
/// Entries kept in memory after they were written: they are about to be applied.
const KEPT: u64 = 256;
/// Bytes of entries that are sent at once; one that is larger is sent alone.
const SENT_BYTES: u64 = 512 << 10;

/// Who hears how a write went.
enum Done {
    Flushed(IOFlushed<Consensus>),
    Reply(oneshot::Sender<io::Result<()>>),
    Nobody,
}

impl Done {
    fn tell(self, result: &io::Result<()>) {
        let result = match result {
            Ok(()) => Ok(()),
            Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
        };
        match self {
            Self::Flushed(flushed) => flushed.io_completed(result),
            // Whoever asked may have gone: then nobody needs to know.
            Self::Reply(reply) => drop(reply.send(result)),
            Self::Nobody => {}
        }
    }
}

struct Job {
    writes: Vec<Write>,
    done: Done,
}

/// Queues writes for the thread that owns the file.
#[derive(Clone)]
pub(crate) struct Writer {
    jobs: mpsc::Sender<Job>,
}

impl Writer {
    async fn queue(&self, writes: Vec<Write>, done: Done) -> io::Result<()> {
        let sent = self.jobs.send(Job { writes, done }).await;
        sent.map_err(|_gone| io::Error::other("the log's writer has stopped"))
    }

    /// Writes and waits until it is on disk.
    pub(crate) async fn write(&self, write: Write) -> io::Result<()> {
        let (reply, wait) = oneshot::channel();
        self.queue(vec![write], Done::Reply(reply)).await?;
        wait.await.map_err(|_gone| io::Error::other("the log's writer has stopped"))?
    }
}

/// What is known of the log without looking at the disk.
#[derive(Debug, Default)]
struct Known {
    vote: Option<Vote>,
    purged: Option<LogId>,
    last: Option<LogId>,
    committed: Option<LogId>,
    /// What the file says is committed.
    noted: Option<LogId>,
    /// The newest format of entries that the file says it has.
    format: Format,
    /// The newest entries, without a gap; those on disk may be missing at its start.
    tail: BTreeMap<u64, Tail>,
}

/// An entry in memory, and its bytes on disk.
#[derive(Debug)]
struct Tail {
    entry: Entry,
    size: u64,
}

#[derive(Clone)]
pub(crate) struct Log {
    known: Arc<Mutex<Known>>,
    disk: Arc<Disk>,
    writer: Writer,
    sizes: Arc<Sizes>,
}

impl Log {
    /// Starts the thread that writes. It ends when the log and all its writers are dropped, and
    /// `last` with it: should it panic, whoever waits for the disk would wait for ever.
    pub(crate) fn start(
        disk: &Arc<Disk>,
        found: &Found,
        sizes: Arc<Sizes>,
        last: DropGuard,
    ) -> io::Result<(Self, JoinHandle<()>)> {
        let (jobs, queue) = mpsc::channel(QUEUE);
        let known = Arc::new(Mutex::new(Known {
            vote: found.vote,
            purged: found.purged,
            last: found.last,
            committed: found.committed,
            noted: found.committed,
            format: found.format,
            tail: BTreeMap::new(),
        }));
        let file = File {
            disk: Arc::clone(disk),
            known: Arc::clone(&known),
            end: found.last.map_or(0, |last| last.index.saturating_add(1)),
        };
        let thread = std::thread::Builder::new().name("raft-log".to_owned()).spawn(move || {
            let _last = last;
            file.run(queue);
        })?;
        let log = Self { known, disk: Arc::clone(disk), writer: Writer { jobs }, sizes };
        Ok((log, thread))
    }

    pub(crate) fn writer(&self) -> Writer {
        self.writer.clone()
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        lock(&self.known)
    }

    /// The file does not say yet what is known to be committed.
    pub(crate) fn is_behind(&self) -> bool {
        let known = self.known();
        known.noted < known.committed
    }

    /// Has the file say so.
    pub(crate) async fn note_committed(&self) -> io::Result<()> {
        self.writer.queue(Vec::new(), Done::Nobody).await
    }

    /// What the file is to say first where this entry is the first of its format.
    fn newer_format(&self, entry: &Entry) -> io::Result<Option<Write>> {
        let EntryPayload::Normal(record) = &entry.payload else { return Ok(None) };
        let mut known = self.known();
        if record.format <= known.format {
            return Ok(None);
        }
        known.format = record.format;
        encode(&record.format).map(|format| Some(Write::Format(format)))
    }

    async fn read(&self, start: u64, end: u64, limit: u64) -> io::Result<Vec<Entry>> {
        if start >= end {
            return Ok(Vec::new());
        }
        let (tail, on_disk) = {
            let known = self.known();
            let after_last = known.last.map_or(0, |last| last.index.saturating_add(1));
            let first = known.tail.range(start..end).next().map(|(index, _)| *index);
            let on_disk = start..first.unwrap_or(end.min(after_last));
            // Whoever gets a part only gets its beginning.
            let wanted = if limit == u64::MAX || on_disk.is_empty() { end } else { start };
            (first_of(known.tail.range(start..wanted), limit), on_disk)
        };
        if on_disk.is_empty() {
            return Ok(tail);
        }
        let disk = Arc::clone(&self.disk);
        let read =
            tokio::task::spawn_blocking(move || disk.entries(on_disk.start, on_disk.end, limit));
        let mut entries = read.await.map_err(io::Error::other)??;
        entries.extend(tail);
        Ok(entries)
    }
}

/// The first entries of `tail` that have no more than `limit` bytes, but at least one.
fn first_of<'a>(tail: impl Iterator<Item = (&'a u64, &'a Tail)>, limit: u64) -> Vec<Entry> {
    let (mut entries, mut bytes) = (Vec::new(), 0_u64);
    for (_, Tail { entry, size }) in tail {
        bytes = bytes.saturating_add(*size);
        if limit < bytes && !entries.is_empty() {
            break;
        }
        entries.push(entry.clone());
    }
    entries
}

fn lock(known: &Mutex<Known>) -> MutexGuard<'_, Known> {
    // Nothing panics while it holds the lock; if it did, what is known is still whole.
    known.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The thread of the file.
struct File {
    disk: Arc<Disk>,
    known: Arc<Mutex<Known>>,
    /// The index after the last entry in the file.
    end: u64,
}

impl File {
    fn run(mut self, mut queue: mpsc::Receiver<Job>) {
        while let Some(job) = queue.blocking_recv() {
            let mut jobs = vec![job];
            while jobs.len() < GROUP
                && let Ok(job) = queue.try_recv()
            {
                jobs.push(job);
            }
            let result = self.write(&jobs);
            match &result {
                Ok(()) => forget_written(&self.known, &jobs),
                Err(error) => tracing::error!(%error, "the log cannot be written"),
            }
            for job in jobs {
                job.done.tell(&result);
            }
        }
        if let Err(error) = self.write(&[]) {
            tracing::warn!(%error, "cannot note how far the log is committed");
        }
    }

    /// Writes what these jobs say, and what is committed of all that is in the file then.
    fn write(&mut self, jobs: &[Job]) -> io::Result<()> {
        for write in jobs.iter().flat_map(|job| &job.writes) {
            match write {
                Write::Append { index, .. } => self.end = index.saturating_add(1),
                Write::Truncate(from) => self.end = self.end.min(*from),
                Write::Purge(upto, _) => self.end = self.end.max(upto.saturating_add(1)),
                Write::Format(_)
                | Write::Vote(_)
                | Write::Committed(_)
                | Write::Snapshot { .. } => {}
            }
        }
        let committed = {
            let known = lock(&self.known);
            let is_new = |id: &LogId| known.noted < Some(*id) && id.index < self.end;
            known.committed.filter(is_new)
        };
        let note = committed.map(|id| encode(&id).map(Write::Committed)).transpose()?;
        if jobs.iter().all(|job| job.writes.is_empty()) && note.is_none() {
            return Ok(());
        }
        self.disk.commit(jobs.iter().flat_map(|job| &job.writes).chain(&note))?;
        let mut known = lock(&self.known);
        known.noted = committed.or(known.noted);
        Ok(())
    }
}

/// Drops entries from memory that are on disk, except the newest.
fn forget_written(known: &Mutex<Known>, jobs: &[Job]) {
    let written = jobs.iter().flat_map(|job| &job.writes).filter_map(|write| match write {
        Write::Append { index, .. } => Some(*index),
        Write::Format(_)
        | Write::Vote(_)
        | Write::Truncate(_)
        | Write::Purge(..)
        | Write::Committed(_)
        | Write::Snapshot { .. } => None,
    });
    if let Some(index) = written.max() {
        let mut known = lock(known);
        known.tail = known.tail.split_off(&index.saturating_sub(KEPT));
    }
}

impl RaftLogReader<Consensus> for Log {
    async fn try_get_log_entries<RB>(&mut self, range: RB) -> io::Result<Vec<Entry>>
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let start = match range.start_bound() {
            Bound::Included(start) => *start,
            Bound::Excluded(before) => before.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(last) => last.saturating_add(1),
            Bound::Excluded(end) => *end,
            Bound::Unbounded => u64::MAX,
        };
        self.read(start, end, u64::MAX).await
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        self.read(start, end, SENT_BYTES).await
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.known().vote)
    }
}

impl RaftLogStorage<Consensus> for Log {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<Consensus>> {
        let known = self.known();
        Ok(LogState { last_purged_log_id: known.purged, last_log_id: known.last })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &alias::VoteOf<Consensus>) -> io::Result<()> {
        let write = Write::Vote(encode(vote)?);
        self.known().vote = Some(*vote);
        self.writer.write(write).await
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        self.known().committed = committed;
        Ok(())
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        Ok(self.known().committed)
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Consensus>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut writes = Vec::new();
        let mut appended = Vec::new();
        for entry in entries {
            writes.extend(self.newer_format(&entry)?);
            let data = encode(&entry)?;
            let size = bytes(&data);
            self.sizes.append(size);
            writes.push(Write::Append { index: entry.log_id.index, entry: data });
            appended.push(Tail { entry, size });
        }
        {
            let mut known = self.known();
            known.last = appended.last().map(|tail| tail.entry.log_id).or(known.last);
            known.tail.extend(appended.into_iter().map(|tail| (tail.entry.log_id.index, tail)));
        }
        self.writer.queue(writes, Done::Flushed(callback)).await
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        let from = last.map_or(0, |last| last.index.saturating_add(1));
        {
            let mut known = self.known();
            known.tail.split_off(&from);
            known.last = known.last.min(last).max(known.purged);
        }
        self.writer.write(Write::Truncate(from)).await
    }

    async fn purge(&mut self, upto: LogId) -> io::Result<()> {
        let write = Write::Purge(upto.index, encode(&upto)?);
        {
            let mut known = self.known();
            known.tail = known.tail.split_off(&upto.index.saturating_add(1));
            known.purged = Some(upto);
            known.last = known.last.max(Some(upto));
        }
        self.writer.write(write).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RaftError;
    use crate::consensus::Record;
    use crate::disk::Keys;
    use tokio_util::sync::CancellationToken;

    /// The release before this one reads the file for as long as there is nothing in it that is new to it.
    #[tokio::test]
    async fn a_file_says_the_newest_format_of_its_entries_and_no_newer_one() {
        let directory = tempfile::tempdir().unwrap();
        let keys = Keys::from(seal::Key::from([7; 32]));
        let (disk, found) = Disk::open(directory.path(), &keys).unwrap();
        assert_eq!(found.format, Format::LEAST);
        let (disk, last) = (Arc::new(disk), CancellationToken::new().drop_guard());
        let (log, thread) = Log::start(&disk, &found, Arc::default(), last).unwrap();
        let entry = |format| {
            let payload = EntryPayload::Normal(Record { format, ..Record::default() });
            Entry { log_id: LogId::new_term_index(1, 1), payload }
        };
        assert!(log.newer_format(&entry(Format::LEAST)).unwrap().is_none());
        let later = entry(Format(Format::PRESENT.0 + 1));
        let note = log.newer_format(&later).unwrap().unwrap();
        assert!(log.newer_format(&later).unwrap().is_none(), "it is said once");
        log.writer.write(note).await.unwrap();
        drop((log, disk));
        thread.join().unwrap();
        let refused = Disk::open(directory.path(), &keys).unwrap_err();
        assert!(matches!(refused, RaftError::Format { what, .. } if what == "the file"));
    }
}
