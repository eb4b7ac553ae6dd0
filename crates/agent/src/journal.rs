//! What must survive a restart of the daemon: tasks, their states, their containers.

use crate::Error;
use crate::worker::Entry;
use journal::Kind;
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use types::TaskId;

const FILE: &str = "tasks.redb";
const TASKS: Kind<TaskId, Entry> = Kind::new("tasks");
/// The whole journal, as former releases wrote it. It is taken over once.
const FORMER: &str = "tasks.msgpack";

/// The tasks of this node on disk. A change writes what changed.
#[derive(Debug)]
pub(crate) struct Journal {
    file: journal::Journal,
    /// What the file holds once it is saved.
    kept: BTreeMap<TaskId, Entry>,
}

impl Journal {
    /// Opens the journal in `dir`, which is made where it is missing.
    pub(crate) async fn open(dir: &Path) -> Result<Self, Error> {
        let mut journal = Self::taken_over(dir).await?;
        journal.file.remove_former(vec![dir.join(FORMER)]).await?;
        Ok(journal)
    }

    /// With what a former release has left, which is not removed yet.
    async fn taken_over(dir: &Path) -> Result<Self, Error> {
        let file = journal::Journal::open(&dir.join(FILE)).await?;
        let kept = file.load(&TASKS).await?;
        let mut journal = Self { file, kept };
        if !journal.file.has_taken_over()
            && let Some(entries) = read(&dir.join(FORMER)).await?
        {
            let gone = journal.kept.keys().filter(|id| !entries.contains_key(*id)).cloned();
            let gone: BTreeMap<TaskId, Option<Entry>> = gone.map(|id| (id, None)).collect();
            let entries = entries.into_iter().map(|(id, entry)| (id, Some(entry)));
            journal.file.take_over()?;
            journal.keep(entries.chain(gone).collect()).await?;
        }
        Ok(journal)
    }

    /// What the journal holds.
    pub(crate) fn entries(&self) -> BTreeMap<TaskId, Entry> {
        self.kept.clone()
    }

    /// Keeps these from now on, and forgets those that are none; what could not be written before
    /// is written, too. Returns when all of it is on disk.
    pub(crate) async fn keep(
        &mut self,
        changed: BTreeMap<TaskId, Option<Entry>>,
    ) -> Result<(), Error> {
        for (id, entry) in changed {
            if self.kept.get(&id) == entry.as_ref() {
                continue;
            }
            if let Some(entry) = entry {
                self.file.put(&TASKS, &id, &entry)?;
                self.kept.insert(id, entry);
            } else {
                self.file.remove(&TASKS, &id)?;
                self.kept.remove(&id);
            }
        }
        Ok(self.file.save().await?)
    }
}

async fn read(path: &Path) -> Result<Option<BTreeMap<TaskId, Entry>>, Error> {
    let failed = |source| Error::Former { path: path.to_owned(), source };
    match tokio::fs::read(path).await {
        Ok(bytes) => wire::decode(&bytes).map(Some).map_err(|error| failed(error.into())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(error.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use stored::{Stored, samples, text};
    use types::{Task, TaskState};

    fn entry(id: &str, state: TaskState) -> Entry {
        let mut entry =
            Entry { task: Task { id: id.into(), ..Task::default() }, ..Entry::default() };
        entry.status.state = state;
        entry
    }

    #[tokio::test]
    async fn what_was_kept_is_there_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(dir.path()).await.unwrap();
        assert!(journal.entries().is_empty());
        let running = entry("t", TaskState::Running);
        let both = [("t".into(), Some(running.clone())), ("u".into(), Some(running.clone()))];
        journal.keep(both.into()).await.unwrap();
        let complete = entry("u", TaskState::Complete);
        let change = [("t".into(), None), ("u".into(), Some(complete.clone()))];
        journal.keep(change.into()).await.unwrap();
        drop(journal);
        let journal = Journal::open(dir.path()).await.unwrap();
        assert_eq!(journal.entries(), [("u".into(), complete)].into());
    }

    /// What every format has written: the former ones the whole file, this one a row for each task.
    #[tokio::test]
    async fn journals_of_every_format_are_read() {
        let mut stored = Stored::of(env!("CARGO_MANIFEST_DIR"));
        let status = samples::status(TaskState::Failed);
        stored.message("row.msgpack", Entry { status, task: samples::task() });
        for (format, bytes) in stored.former(FORMER) {
            let dir = tempfile::tempdir().unwrap();
            std::fs::write(dir.path().join(FORMER), bytes).unwrap();
            let journal = Journal::open(dir.path()).await.unwrap();
            stored.reads(&format, FORMER, &text(&journal.entries()));
        }
        stored.finish(&[("0.1.0-format1", "a91ed9c03cb58acc")]);
    }

    #[tokio::test]
    async fn a_damaged_journal_is_not_taken_for_an_empty_one() {
        for name in [FILE, FORMER] {
            let dir = tempfile::tempdir().unwrap();
            std::fs::write(dir.path().join(name), b"not a journal").unwrap();
            let error = Journal::open(dir.path()).await.unwrap_err().to_string();
            assert!(error.contains(name) && error.contains("move it away"), "{error}");
        }
    }

    #[tokio::test]
    async fn what_is_taken_over_is_not_taken_over_again_when_the_daemon_dies_on_the_way() {
        let dir = tempfile::tempdir().unwrap();
        let bytes = include_bytes!("../tests/stored/0.1.0-format1/tasks.msgpack");
        std::fs::write(dir.path().join(FORMER), bytes).unwrap();
        drop(Journal::taken_over(dir.path()).await.unwrap());
        let mut journal = Journal::taken_over(dir.path()).await.unwrap();
        let newer = BTreeMap::from([("t".into(), entry("t", TaskState::Running))]);
        let gone = journal.entries().into_keys().map(|id| (id, None));
        let changed = newer.clone().into_iter().map(|(id, entry)| (id, Some(entry)));
        journal.keep(gone.chain(changed).collect()).await.unwrap();
        drop(journal);
        for _ in 0..2 {
            let journal = Journal::open(dir.path()).await.unwrap();
            assert_eq!(journal.entries(), newer);
            assert!(!dir.path().join(FORMER).exists());
        }
    }

    #[tokio::test]
    async fn what_a_former_release_wrote_is_taken_over_once() {
        let dir = tempfile::tempdir().unwrap();
        let bytes = include_bytes!("../tests/stored/0.1.0-format1/tasks.msgpack");
        let former: BTreeMap<TaskId, Entry> = wire::decode(bytes).unwrap();
        assert!(!former.is_empty());
        std::fs::write(dir.path().join(FORMER), bytes).unwrap();
        for _ in 0..2 {
            let journal = Journal::open(dir.path()).await.unwrap();
            assert_eq!(journal.entries(), former);
            assert!(!dir.path().join(FORMER).exists());
        }
    }
}
