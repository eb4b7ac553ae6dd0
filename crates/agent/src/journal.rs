//! What must survive a restart of the daemon: tasks, their states, their containers.

use crate::Error;
use crate::worker::Entry;
use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use types::TaskId;

const NAME: &str = "tasks.msgpack";

/// The journal's file, always whole: a new one takes the old one's place.
#[derive(Clone, Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    /// What the file holds.
    kept: BTreeMap<TaskId, Entry>,
}

impl Journal {
    /// Opens the journal in `dir`, which is made where it is missing.
    pub(crate) fn open(dir: &Path) -> Result<Self, Error> {
        let path = dir.join(NAME);
        let wrong = |source| Error::Journal { path: path.clone(), source };
        std::fs::create_dir_all(dir).map_err(wrong)?;
        let kept = match std::fs::read(&path) {
            Ok(bytes) => {
                wire::decode(&bytes).map_err(|_unreadable| Error::Damaged { path: path.clone() })?
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            Err(source) => return Err(wrong(source)),
        };
        Ok(Self { path, kept })
    }

    /// What the journal holds.
    pub(crate) fn entries(&self) -> BTreeMap<TaskId, Entry> {
        self.kept.clone()
    }

    /// Keeps `entries` instead of what was kept before. Returns when they are on disk.
    pub(crate) async fn keep(&mut self, entries: BTreeMap<TaskId, Entry>) -> Result<(), Error> {
        if entries == self.kept {
            return Ok(());
        }
        let wrong = |source| Error::Journal { path: self.path.clone(), source };
        let bytes = wire::encode(&entries)
            .map_err(|error| wrong(io::Error::new(io::ErrorKind::InvalidData, error)))?;
        let path = self.path.clone();
        let written = tokio::task::spawn_blocking(move || replace(&path, &bytes)).await;
        written.map_err(|error| wrong(io::Error::other(error)))?.map_err(wrong)?;
        self.kept = entries;
        Ok(())
    }
}

/// Writes a file so that a crash leaves the old one or the new one.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    // Credentials for registries are in it.
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = options.open(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&new, path)?;
    // The name must be on disk too.
    let dir = path.parent().unwrap_or(Path::new("."));
    std::fs::File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;
    use stored::{Stored, samples, text};
    use types::{Task, TaskState};

    #[tokio::test]
    async fn what_was_kept_is_there_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(dir.path()).unwrap();
        assert!(journal.entries().is_empty());
        let mut entry =
            Entry { task: Task { id: "t".into(), ..Task::default() }, ..Entry::default() };
        entry.status.state = TaskState::Running;
        let entries = BTreeMap::from([("t".into(), entry)]);
        journal.keep(entries.clone()).await.unwrap();
        assert_eq!(Journal::open(dir.path()).unwrap().entries(), entries);
        let mode = std::fs::metadata(dir.path().join(NAME)).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "others can read credentials");
    }

    /// The file as every format has written it.
    #[test]
    fn journals_of_every_format_are_read() {
        let mut stored = Stored::of(env!("CARGO_MANIFEST_DIR"));
        let entry = |task: Task| {
            (task.id.clone(), Entry { status: samples::status(TaskState::Failed), task })
        };
        let entries = BTreeMap::from([samples::task(), samples::other_task()].map(entry));
        stored.present(NAME, &wire::encode(&entries).unwrap());
        for (format, bytes) in stored.former(NAME) {
            let dir = tempfile::tempdir().unwrap();
            std::fs::write(dir.path().join(NAME), bytes).unwrap();
            let journal = Journal::open(dir.path()).unwrap();
            stored.reads(&format, NAME, &text(&journal.entries()));
        }
        stored.finish(&[("0.1.0-format1", "a91ed9c03cb58acc")]);
    }

    #[test]
    fn a_damaged_journal_is_not_taken_for_an_empty_one() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(NAME), b"not a journal").unwrap();
        assert!(matches!(Journal::open(dir.path()), Err(Error::Damaged { .. })));
    }
}
