use super::*;
use std::os::unix::fs::PermissionsExt as _;

const NAMES: Kind<u32, String> = Kind::new("names");
const PAIRS: Kind<(String, u16), ()> = Kind::new("pairs");

fn path(dir: &tempfile::TempDir) -> PathBuf {
    dir.path().join("journal.redb")
}

async fn with(dir: &tempfile::TempDir, count: u32) -> Journal {
    let mut journal = Journal::open(&path(dir)).await.unwrap();
    for number in 0..count {
        journal.put(&NAMES, &number, &format!("name {number}")).unwrap();
    }
    journal.save().await.unwrap();
    journal
}

#[tokio::test]
async fn what_was_saved_is_there_after_a_restart_and_for_the_owner_alone() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = with(&dir, 3).await;
    journal.put(&PAIRS, &("tcp".to_owned(), 80), &()).unwrap();
    journal.put(&NAMES, &1, &"other".to_owned()).unwrap();
    journal.remove(&NAMES, &2).unwrap();
    journal.save().await.unwrap();
    journal.put(&NAMES, &7, &"not saved".to_owned()).unwrap();
    drop(journal);
    let journal = Journal::open(&path(&dir)).await.unwrap();
    let names = BTreeMap::from([(0, "name 0".to_owned()), (1, "other".to_owned())]);
    assert_eq!(journal.load(&NAMES).await.unwrap(), names);
    assert_eq!(journal.load(&PAIRS).await.unwrap(), [(("tcp".to_owned(), 80), ())].into());
    let mode = std::fs::metadata(path(&dir)).unwrap().permissions().mode();
    assert_eq!(mode & 0o077, 0, "others can read credentials");
}

#[tokio::test]
async fn a_file_that_was_just_made_or_lost_its_content_is_empty() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(path(&dir), b"").unwrap();
    assert_eq!(
        Journal::open(&path(&dir)).await.unwrap().load(&NAMES).await.unwrap(),
        BTreeMap::new()
    );
}

#[tokio::test]
async fn damage_is_told_with_its_path_wherever_it_is() {
    let dir = tempfile::tempdir().unwrap();
    drop(with(&dir, 1000).await);
    let whole = std::fs::read(path(&dir)).unwrap();
    let expected = Journal::open(&path(&dir)).await.unwrap().load(&NAMES).await.unwrap();
    for at in (0..whole.len()).step_by(whole.len() / 64) {
        let mut damaged = whole.clone();
        damaged[at..(at + 8).min(whole.len())].fill(0xa5);
        std::fs::write(path(&dir), &damaged).unwrap();
        let read = match Journal::open(&path(&dir)).await {
            Ok(journal) => journal.load(&NAMES).await,
            Err(error) => Err(error),
        };
        match read {
            // Nothing that counts is there.
            Ok(names) => assert_eq!(names, expected, "at {at}"),
            Err(error) => assert!(error.to_string().contains("journal.redb"), "at {at}: {error}"),
        }
    }
    std::fs::write(path(&dir), b"not a journal").unwrap();
    assert!(matches!(Journal::open(&path(&dir)).await, Err(Error::Damaged { .. })));
}

#[tokio::test]
async fn a_value_of_another_form_is_damage() {
    let dir = tempfile::tempdir().unwrap();
    let journal = with(&dir, 1).await;
    let other: Kind<u32, bool> = Kind::new("names");
    assert!(matches!(journal.load(&other).await, Err(Error::Damaged { .. })));
}

#[tokio::test]
async fn a_file_that_somebody_still_holds_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let held = with(&dir, 3).await;
    let path = path(&dir);
    // The first is asked first, and finds the file held.
    let (journal, ()) = tokio::join!(Journal::open(&path), async { drop(held) });
    assert_eq!(journal.unwrap().load(&NAMES).await.unwrap().len(), 3);
}

#[tokio::test]
async fn whoever_gives_up_waiting_for_the_disk_has_lost_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = with(&dir, 1).await;
    let hung = fake::hang(&path(&dir));
    for number in 1..4 {
        journal.put(&NAMES, &number, &format!("name {number}")).unwrap();
        journal.put(&NAMES, &0, &format!("renamed {number}")).unwrap();
        let given_up = tokio::time::timeout(Duration::from_millis(10), journal.save()).await;
        assert!(given_up.is_err(), "the disk hangs");
    }
    drop(hung);
    journal.save().await.unwrap();
    drop(journal);
    let names = Journal::open(&path(&dir)).await.unwrap().load(&NAMES).await.unwrap();
    let names: Vec<&str> = names.values().map(String::as_str).collect();
    assert_eq!(names, ["renamed 3", "name 1", "name 2", "name 3"]);
}

/// A test that sees how many threads wait: their number is bounded in the whole process.
#[test]
fn one_thread_waits_for_a_disk_that_hangs() {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().max_blocking_threads(2).build().unwrap();
    runtime.block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = with(&dir, 1).await;
        let hung = fake::hang(&path(&dir));
        for number in 1..4 {
            journal.put(&NAMES, &number, &String::new()).unwrap();
            let given_up = tokio::time::timeout(Duration::from_millis(10), journal.save()).await;
            assert!(given_up.is_err(), "the disk hangs");
        }
        let other = tokio::task::spawn_blocking(|| ());
        tokio::time::timeout(Duration::from_secs(10), other).await.unwrap().unwrap();
        drop(hung);
        journal.save().await.unwrap();
    });
}
