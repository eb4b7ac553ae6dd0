//! Reads a log, over all its files, and goes on as it grows.

use super::{LogEntry, LogFile, LogOptions, line, split};
use bytes::BytesMut;
use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::sync::Arc;
use tokio::sync::mpsc;
use types::Fault;

/// Lines that are read at once, and their bytes.
const BATCH: usize = 256;
const BATCH_BYTES: usize = 1 << 20;
/// The pieces of a longer line are not put together any further.
const JOINED_MAX: usize = 256 << 10;
/// What is buffered of a file.
const BUFFER: usize = 64 << 10;
/// A damaged line may be as long as a file; no line that is written is longer than this.
const LINE_MAX: usize = 1 << 20;

/// Where a reader is.
struct Cursor {
    log: Arc<LogFile>,
    /// The file that is read, with its number.
    file: Option<(u64, BufReader<File>)>,
    /// The next file.
    next: u64,
    /// What has come of a line of the file whose end was not written yet.
    partial: Vec<u8>,
    /// Pieces of long lines whose last one is not here yet, of stdout and of stderr.
    pieces: BTreeMap<bool, LogEntry>,
}

/// What was read at once.
struct Batch {
    entries: Vec<LogEntry>,
    /// There is no more for now.
    at_end: bool,
}

/// Sends the lines that `options` want, until the end of the log, or until nobody listens.
pub(crate) async fn read(
    log: Arc<LogFile>,
    options: LogOptions,
    sink: mpsc::Sender<Result<LogEntry, Fault>>,
) {
    let mut progress = log.progress();
    let (partial, pieces) = (Vec::new(), BTreeMap::new());
    let mut cursor = Cursor { log, file: None, next: 0, partial, pieces };
    let mut tail = options.tail.map(|count| (count, VecDeque::new()));
    loop {
        // Looked at before reading: what comes later is read in the next round.
        let closed = progress.borrow_and_update().closed;
        let reading = tokio::task::spawn_blocking(move || {
            let batch = cursor.batch();
            (cursor, batch)
        });
        let Ok((returned, batch)) = reading.await else { return };
        cursor = returned;
        let Batch { mut entries, at_end } = match batch {
            Ok(batch) => batch,
            Err(error) => {
                let fault = Fault::internal(format!("cannot read the log: {error}"));
                let _gone = sink.send(Err(fault)).await;
                return;
            }
        };
        let last = at_end && (closed || !options.follow);
        if last {
            // A line that is not ended is shown as far as it has come.
            entries.extend(std::mem::take(&mut cursor.pieces).into_values());
        }
        let past = entries.iter().any(|entry| options.is_past(entry));
        let wanted = entries.into_iter().filter(|entry| options.wants(entry));
        match &mut tail {
            Some((count, last)) => keep(*count, last, wanted),
            None => {
                if !send(&sink, wanted).await {
                    return;
                }
            }
        }
        if past || at_end {
            if let Some((_, last)) = tail.take()
                && !send(&sink, last.into_iter()).await
            {
                return;
            }
            if past || last {
                return;
            }
            tokio::select! {
                changed = progress.changed() => if changed.is_err() { return },
                () = sink.closed() => return,
            }
        }
    }
}

fn keep(count: u64, last: &mut VecDeque<LogEntry>, entries: impl Iterator<Item = LogEntry>) {
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    for entry in entries {
        last.push_back(entry);
        if count < last.len() {
            last.pop_front();
        }
    }
}

/// False when nobody listens any more.
async fn send(
    sink: &mpsc::Sender<Result<LogEntry, Fault>>,
    entries: impl Iterator<Item = LogEntry>,
) -> bool {
    for entry in entries {
        if sink.send(Ok(entry)).await.is_err() {
            return false;
        }
    }
    true
}

impl Cursor {
    /// Reads the next lines.
    fn batch(&mut self) -> io::Result<Batch> {
        let mut batch = Batch { entries: Vec::new(), at_end: false };
        let mut bytes = 0;
        while batch.entries.len() < BATCH && bytes < BATCH_BYTES {
            let Some((number, file)) = &mut self.file else {
                let Some((number, file)) = self.log.open_from(self.next) else {
                    batch.at_end = true;
                    break;
                };
                self.next = number + 1;
                self.file = Some((number, BufReader::with_capacity(BUFFER, file)));
                continue;
            };
            // Asked before reading: an old file gets no more, so its end is its end.
            let old = self.log.is_old(*number);
            if 0 < file.read_until(b'\n', &mut self.partial)? {
                let whole = self.partial.ends_with(b"\n");
                if whole || LINE_MAX < self.partial.len() {
                    bytes += self.partial.len();
                    let entry = line::parse(&self.partial);
                    self.partial.clear();
                    batch.entries.extend(entry.and_then(|entry| self.join(entry)));
                }
                continue;
            }
            if !old {
                batch.at_end = true;
                break;
            }
            self.partial.clear();
            self.file = None;
        }
        Ok(batch)
    }

    /// Puts the pieces of a long line together: it is one entry with the time of its beginning.
    fn join(&mut self, entry: LogEntry) -> Option<LogEntry> {
        let goes_on = split::is_piece(&entry.bytes);
        let joined = match self.pieces.remove(&entry.stderr) {
            Some(begun) => {
                let mut bytes = BytesMut::from(begun.bytes);
                bytes.extend_from_slice(&entry.bytes);
                LogEntry { bytes: bytes.freeze(), ..begun }
            }
            None => entry,
        };
        if goes_on && joined.bytes.len() < JOINED_MAX {
            self.pieces.insert(joined.stderr, joined);
            return None;
        }
        Some(joined)
    }
}
