//! A disk that is full: alone in its process, which may write files up to a size only.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use journal::{Error, Journal, Kind};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, Signal};
use std::collections::BTreeMap;
use std::path::Path;

const TEXTS: Kind<u32, String> = Kind::new("texts");

async fn found(path: &Path) -> BTreeMap<u32, usize> {
    let texts = Journal::open(path).await.unwrap().load(&TEXTS).await.unwrap();
    texts.into_iter().map(|(number, text)| (number, text.len())).collect()
}

#[tokio::test]
async fn a_full_disk_loses_nothing_says_so_and_is_made_up_for() {
    // The thread that writes is this one's child.
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGXFSZ);
    signals.thread_block().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal.redb");
    let mut journal = Journal::open(&path).await.unwrap();
    journal.put(&TEXTS, &1, &"a".repeat(10)).unwrap();
    journal.save().await.unwrap();

    let (usual, most) = getrlimit(Resource::RLIMIT_FSIZE).unwrap();
    let size = std::fs::metadata(&path).unwrap().len();
    setrlimit(Resource::RLIMIT_FSIZE, size, most).unwrap();
    journal.put(&TEXTS, &2, &"b".repeat(4 << 20)).unwrap();
    for _ in 0..3 {
        let error = journal.save().await.unwrap_err();
        assert!(matches!(error, Error::Io { .. }), "{error:?}");
        assert!(error.to_string().contains("journal.redb"), "{error}");
    }
    // What is small goes on, as far as there is room in the file.
    drop(journal);
    assert_eq!(found(&path).await, [(1, 10)].into());

    let mut journal = Journal::open(&path).await.unwrap();
    journal.put(&TEXTS, &2, &"b".repeat(4 << 20)).unwrap();
    journal.save().await.unwrap_err();
    setrlimit(Resource::RLIMIT_FSIZE, usual, most).unwrap();
    journal.put(&TEXTS, &3, &"c".to_owned()).unwrap();
    journal.save().await.unwrap();
    drop(journal);
    assert_eq!(found(&path).await, [(1, 10), (2, 4 << 20), (3, 1)].into());
}
