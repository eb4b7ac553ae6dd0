//! What must survive a restart of the daemon: tasks, their states, their containers.

use crate::Error;
use crate::worker::Entry;
use journal::Kind;
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use types::{SharedSpec, SpecId, Specs, TaskId};

const FILE: &str = "tasks.redb";
/// Each names its spec.
const TASKS: Kind<TaskId, Entry> = Kind::new("tasks");
const SPECS: Kind<SpecId, SharedSpec> = Kind::new("specs");
/// The whole journal, as former releases wrote it. It is taken over once.
const FORMER: &str = "tasks.msgpack";

pub(crate) type Entries = BTreeMap<TaskId, Entry>;

/// The tasks of this node on disk. A change writes what changed; what tasks are made from stands
/// once for all that are made from it.
#[derive(Debug)]
pub(crate) struct Journal {
    file: journal::Journal,
    /// What each task in the file is made from.
    made_from: BTreeMap<TaskId, SpecId>,
    /// How many tasks are made from each spec in the file.
    uses: BTreeMap<SpecId, usize>,
}

impl Journal {
    /// Opens the journal in `dir`, which is made where it is missing; says what it holds.
    pub(crate) async fn open(dir: &Path) -> Result<(Self, Entries), Error> {
        let (mut journal, entries) = Self::taken_over(dir).await?;
        journal.file.remove_former(vec![dir.join(FORMER)]).await?;
        Ok((journal, entries))
    }

    /// With what a former release has left, which is not removed yet.
    async fn taken_over(dir: &Path) -> Result<(Self, Entries), Error> {
        let path = dir.join(FILE);
        let file = journal::Journal::open(&path).await?;
        let specs = Specs::from(file.load(&SPECS).await?);
        let mut entries = file.load(&TASKS).await?;
        let mut journal = Self { file, made_from: BTreeMap::new(), uses: BTreeMap::new() };
        for entry in entries.values_mut() {
            let given = specs.give(&mut entry.task, |_| None);
            given.map_err(|error| journal::Error::Damaged {
                path: path.clone(),
                source: error.into(),
            })?;
            journal.make(&entry.task.id, Some(&entry.task.spec), |id| specs.get(id).is_some())?;
        }
        if !journal.file.has_taken_over()
            && let Some(former) = read(&dir.join(FORMER)).await?
        {
            let gone = entries.into_keys().filter(|id| !former.contains_key(id));
            let gone = gone.map(|id| (id, None)).collect::<Vec<_>>();
            let all = former.iter().map(|(id, entry)| (id.clone(), Some(entry.clone())));
            journal.file.take_over()?;
            journal.keep(all.chain(gone).collect()).await?;
            entries = former;
        }
        Ok((journal, entries))
    }

    /// Keeps these from now on, and forgets those that are none; what could not be written before
    /// is written, too. Returns when all of it is on disk.
    pub(crate) async fn keep(
        &mut self,
        changed: BTreeMap<TaskId, Option<Entry>>,
    ) -> Result<(), Error> {
        for (id, entry) in changed {
            self.make(&id, entry.as_ref().map(|entry| &entry.task.spec), |_| false)?;
            match entry {
                Some(Entry { task, status }) => {
                    let task = task.with_spec_by_id();
                    self.file.put(&TASKS, &id, &Entry { task, status })?;
                }
                None => self.file.remove(&TASKS, &id)?,
            }
        }
        Ok(self.file.save().await?)
    }

    /// Notes what a task is made from; `None`: it goes. A spec is in the file for as long as there
    /// are tasks that are made from it.
    fn make(
        &mut self,
        task: &TaskId,
        spec: Option<&SharedSpec>,
        is_there: impl Fn(&SpecId) -> bool,
    ) -> Result<(), journal::Error> {
        if let Some(spec) = spec {
            let uses = self.uses.entry(spec.id().clone()).or_default();
            if *uses == 0 && !is_there(spec.id()) {
                self.file.put(&SPECS, spec.id(), spec)?;
            }
            *uses += 1;
        }
        let before = match spec {
            Some(spec) => self.made_from.insert(task.clone(), spec.id().clone()),
            None => self.made_from.remove(task),
        };
        if let Some(spec) = before
            && let Some(uses) = self.uses.get_mut(&spec)
        {
            *uses -= 1;
            if *uses == 0 {
                self.uses.remove(&spec);
                self.file.remove(&SPECS, &spec)?;
            }
        }
        Ok(())
    }
}

async fn read(path: &Path) -> Result<Option<Entries>, Error> {
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

    fn entry(id: &str, image: &str, state: TaskState) -> Entry {
        let mut task = Task { id: id.into(), ..Task::default() };
        task.spec.container.image = image.into();
        let mut entry = Entry { task, ..Entry::default() };
        entry.status.state = state;
        entry
    }

    fn change<const N: usize>(entries: [Entry; N]) -> BTreeMap<TaskId, Option<Entry>> {
        entries.map(|entry| (entry.task.id.clone(), Some(entry))).into()
    }

    async fn found(dir: &tempfile::TempDir) -> Entries {
        Journal::open(dir.path()).await.unwrap().1
    }

    #[tokio::test]
    async fn what_was_kept_is_there_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let (mut journal, entries) = Journal::open(dir.path()).await.unwrap();
        assert!(entries.is_empty());
        let both = ["t", "u"].map(|id| entry(id, "image", TaskState::Running));
        journal.keep(change(both)).await.unwrap();
        let complete = entry("u", "image", TaskState::Complete);
        let mut changed = change([complete.clone()]);
        changed.insert("t".into(), None);
        journal.keep(changed).await.unwrap();
        drop(journal);
        assert_eq!(found(&dir).await, [("u".into(), complete)].into());
    }

    #[tokio::test]
    async fn a_spec_stands_once_for_as_long_as_there_are_tasks_that_are_made_from_it() {
        let dir = tempfile::tempdir().unwrap();
        let (mut journal, _) = Journal::open(dir.path()).await.unwrap();
        let made = |id, image| entry(id, image, TaskState::Running);
        let steps = [
            (change([made("t", "one"), made("u", "one"), made("v", "two")]), 2),
            (change([made("t", "two"), made("t", "two")]), 2),
            ([("u".into(), None)].into(), 1),
            ([("u".into(), None), ("v".into(), None)].into(), 1),
            (change([made("w", "three")]), 2),
            ([("t".into(), None), ("w".into(), None)].into(), 0),
        ];
        let mut expected = Entries::new();
        for (changed, specs) in steps {
            for (id, entry) in changed.clone() {
                match entry {
                    Some(entry) => drop(expected.insert(id, entry)),
                    None => drop(expected.remove(&id)),
                }
            }
            journal.keep(changed).await.unwrap();
            assert_eq!(journal.file.load(&SPECS).await.unwrap().len(), specs);
            drop(journal);
            let (again, entries) = Journal::open(dir.path()).await.unwrap();
            assert_eq!(entries, expected);
            journal = again;
        }
    }

    /// What every format has written: the former ones the whole file, this one a row for each task
    /// and for each spec.
    #[tokio::test]
    async fn journals_of_every_format_are_read() {
        let mut stored = Stored::of(env!("CARGO_MANIFEST_DIR"));
        let (status, task) = (samples::status(TaskState::Failed), samples::task());
        stored.message("row-spec.msgpack", task.spec.clone());
        stored.message("row.msgpack", Entry { status, task: task.with_spec_by_id() });
        for (format, bytes) in stored.former(FORMER) {
            let dir = tempfile::tempdir().unwrap();
            std::fs::write(dir.path().join(FORMER), bytes).unwrap();
            stored.reads(&format, FORMER, &text(&found(&dir).await));
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

    fn left_by_former() -> (tempfile::TempDir, Entries) {
        let dir = tempfile::tempdir().unwrap();
        let bytes = include_bytes!("../tests/stored/0.1.0-format1/tasks.msgpack");
        std::fs::write(dir.path().join(FORMER), bytes).unwrap();
        (dir, wire::decode(bytes).unwrap())
    }

    #[tokio::test]
    async fn what_a_former_release_wrote_is_taken_over_once() {
        let (dir, former) = left_by_former();
        assert!(!former.is_empty());
        for _ in 0..2 {
            assert_eq!(found(&dir).await, former);
            assert!(!dir.path().join(FORMER).exists());
        }
    }

    #[tokio::test]
    async fn what_is_taken_over_is_not_taken_over_again_when_the_daemon_dies_on_the_way() {
        let (dir, former) = left_by_former();
        drop(Journal::taken_over(dir.path()).await.unwrap());
        let (mut journal, entries) = Journal::taken_over(dir.path()).await.unwrap();
        assert_eq!(entries, former);
        let newer = entry("t", "image", TaskState::Running);
        let mut changed = change([newer.clone()]);
        changed.extend(former.into_keys().map(|id| (id, None)));
        journal.keep(changed).await.unwrap();
        drop(journal);
        for _ in 0..2 {
            assert_eq!(found(&dir).await, [("t".into(), newer.clone())].into());
            assert!(!dir.path().join(FORMER).exists());
        }
    }
}
