//! The files of one log: the current one, and older ones with `.1`, `.2`, … behind.

use super::{LogEntry, line};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;
use types::Labels;

/// When files rotate, and how many are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    pub(crate) size: u64,
    pub(crate) files: u32,
}

/// How far a log is. Readers wait for it to change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Progress {
    /// Counts what was appended.
    pub(super) appended: u64,
    /// The container has ended, and all it wrote is here.
    pub(super) closed: bool,
}

/// A log. One pump writes, any number of readers read.
#[derive(Debug)]
pub(crate) struct LogFile {
    path: PathBuf,
    limits: Limits,
    /// Go with each line.
    attributes: Labels,
    writer: Mutex<Writer>,
    progress: watch::Sender<Progress>,
}

#[derive(Debug)]
struct Writer {
    file: Option<File>,
    size: u64,
    /// Counts rotations: the number of the current file. Older ones have smaller numbers.
    number: u64,
    /// Lines lost since the last one that was written.
    lost: u64,
}

impl LogFile {
    /// A log that may be there already; `closed` unless more may come before the next start.
    pub(crate) fn new(path: PathBuf, limits: Limits, closed: bool, attributes: Labels) -> Self {
        let writer = Writer { file: None, size: 0, number: u64::from(limits.files), lost: 0 };
        let (progress, _) = watch::channel(Progress { appended: 0, closed });
        Self { path, limits, attributes, writer: Mutex::new(writer), progress }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// What goes with each line.
    pub(crate) fn attributes(&self) -> &Labels {
        &self.attributes
    }

    /// More will come: the container starts.
    pub(crate) fn reopen(&self) {
        self.progress.send_modify(|progress| progress.closed = false);
    }

    /// Nothing more will come: readers that follow end when they have read all.
    pub(crate) fn close(&self) {
        // Whoever still writes waits for the disk, and nobody waits for him.
        if let Ok(mut writer) = self.writer.try_lock() {
            writer.file = None;
        }
        self.progress.send_modify(|progress| progress.closed = true);
    }

    /// Appends lines. Lines for which there is no room are lost and counted.
    pub(crate) fn append(&self, entries: &[LogEntry]) {
        let mut text = Vec::with_capacity(entries.len() * 128);
        for entry in entries {
            line::render(entry, &self.attributes, &mut text);
        }
        let mut writer = self.writer();
        match self.write(&mut writer, &text) {
            Ok(()) if 0 < writer.lost => {
                tracing::warn!(log = %self.path.display(), lines = writer.lost, "lines were lost");
                writer.lost = 0;
            }
            Ok(()) => {}
            Err(error) => {
                if writer.lost == 0 {
                    tracing::warn!(log = %self.path.display(), %error, "cannot write; losing lines");
                }
                writer.lost += u64::try_from(entries.len()).unwrap_or(0);
            }
        }
        drop(writer);
        self.progress.send_modify(|progress| progress.appended += 1);
    }

    fn write(&self, writer: &mut Writer, text: &[u8]) -> io::Result<()> {
        if self.limits.size <= writer.size {
            self.rotate(writer)?;
        }
        let mut file = match writer.file.take() {
            Some(file) => file,
            None => self.open(writer)?,
        };
        let written = file.write_all(text);
        if written.is_err() {
            // A line is there whole or not at all.
            file.set_len(writer.size)?;
        } else {
            writer.size += u64::try_from(text.len()).unwrap_or(0);
        }
        writer.file = Some(file);
        written
    }

    fn open(&self, writer: &mut Writer) -> io::Result<File> {
        let mut options = OpenOptions::new();
        let mut file = options.create(true).append(true).read(true).mode(0o600).open(&self.path)?;
        let size = file.seek(SeekFrom::End(0))?;
        // A daemon that died may have left half a line.
        let mut last = [b'\n'];
        if 0 < size {
            file.seek(SeekFrom::End(-1))?;
            file.read_exact(&mut last)?;
        }
        writer.size = size;
        if last != [b'\n'] {
            file.write_all(b"\n")?;
            writer.size += 1;
        }
        Ok(file)
    }

    fn rotate(&self, writer: &mut Writer) -> io::Result<()> {
        writer.file = None;
        let gone = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
        for age in (0..self.limits.files).rev() {
            let (from, to) = (self.aged(age), self.aged(age + 1));
            let last = age + 1 == self.limits.files;
            let moved = if last { fs::remove_file(&from) } else { fs::rename(&from, &to) };
            match moved {
                Err(error) if !gone(&error) => return Err(error),
                _ => {}
            }
        }
        writer.size = 0;
        writer.number += 1;
        Ok(())
    }

    fn aged(&self, age: u32) -> PathBuf {
        if age == 0 {
            return self.path.clone();
        }
        let mut path = self.path.clone().into_os_string();
        path.push(format!(".{age}"));
        path.into()
    }

    /// Opens the oldest file that is not older than `number`, with its own number.
    pub(super) fn open_from(&self, number: u64) -> Option<(u64, File)> {
        // Nothing rotates while the lock is held.
        let writer = self.writer();
        let current = writer.number;
        for age in (0..self.limits.files).rev() {
            let this = current.saturating_sub(u64::from(age));
            if this < number {
                continue;
            }
            if let Ok(file) = File::open(self.aged(age)) {
                return Some((this, file));
            }
        }
        None
    }

    /// Says whether a file is no longer written to.
    pub(super) fn is_old(&self, number: u64) -> bool {
        number < self.writer().number
    }

    pub(super) fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    /// What a panic left behind is still a writer: its file and size are set together at the end.
    fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
