//! PathChecks at files that users name, which may lie on a file system that never answers: while the
//! server of an NFS mount is gone, the kernel keeps whoever asks for a file there, for ever.
//!
//! Invariants: nobody waits longer than [`LOOK_MAX`], and for a path that did not answer in this
//! time nobody waits at all until it does; a path holds one thread, however often it is asked for;
//! no more than [`LOOKS_MAX`] threads are held.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use types::Fault;

/// For one answer of the file system.
const LOOK_MAX: Duration = Duration::from_secs(10);
/// Paths that are being looked at. When it is full, further looks fail at once.
const LOOKS_MAX: usize = 64;

/// How far a look has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    Waits,
    /// Somebody has waited long enough; the thread still waits.
    Overdue,
    Found(bool),
}

/// The looks that go on. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct PathChecks(Arc<Mutex<BTreeMap<PathBuf, watch::Sender<Look>>>>);

impl PathChecks {
    /// Says whether there is anything at `path`; a fault where nobody can tell in time.
    pub(crate) async fn exists(&self, path: &Path) -> Result<bool, Fault> {
        self.ask(path, LOOK_MAX, Path::exists).await
    }

    async fn ask(
        &self,
        path: &Path,
        limit: Duration,
        look: impl FnOnce(&Path) -> bool + Send + 'static,
    ) -> Result<bool, Fault> {
        let look = self.begin(path, look)?;
        let mut told = look.subscribe();
        // What it answers would lock the look.
        drop(tokio::time::timeout(limit, told.wait_for(|look| *look != Look::Waits)).await);
        let late = |look: &mut Look| {
            *look == Look::Waits && {
                *look = Look::Overdue;
                true
            }
        };
        look.send_if_modified(late);
        match *look.borrow() {
            Look::Found(found) => Ok(found),
            Look::Waits | Look::Overdue => {
                let path = path.display();
                Err(Fault::internal(format!("{path} does not answer within {limit:?}")))
            }
        }
    }

    /// A look at `path` that ends when somebody tells what is there.
    #[cfg(test)]
    pub(crate) fn hang(&self, path: &Path) -> std::sync::mpsc::Sender<bool> {
        let (tell, told) = std::sync::mpsc::channel();
        self.begin(path, move |_| told.recv().unwrap_or(false)).unwrap();
        tell
    }

    /// PathChecks on a thread of its own, or joins whoever looks there already.
    fn begin(
        &self,
        path: &Path,
        look: impl FnOnce(&Path) -> bool + Send + 'static,
    ) -> Result<watch::Sender<Look>, Fault> {
        let mut looks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(look) = looks.get(path) {
            return Ok(look.clone());
        }
        if LOOKS_MAX <= looks.len() {
            let path = path.display();
            return Err(Fault::internal(format!(
                "cannot look at {path}: {LOOKS_MAX} other paths do not answer"
            )));
        }
        let tell = watch::Sender::new(Look::Waits);
        looks.insert(path.to_owned(), tell.clone());
        drop(looks);
        let (own, path, begun) = (self.clone(), path.to_owned(), tell.clone());
        tokio::task::spawn_blocking(move || {
            let found = look(&path);
            own.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&path);
            tell.send_replace(Look::Found(found));
        });
        Ok(begun)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[tokio::test]
    async fn a_path_that_does_not_answer_holds_one_thread_and_nobody_for_long() {
        let (looks, short) = (PathChecks::default(), Duration::from_millis(10));
        let (answer, hangs) = mpsc::channel::<bool>();
        let dead = Path::new("/net/dead");
        let fault = looks.ask(dead, short, move |_| hangs.recv().unwrap()).await.unwrap_err();
        assert_eq!(fault.message, "/net/dead does not answer within 10ms");
        let at_once = tokio::time::timeout(LOOK_MAX / 2, looks.exists(dead)).await;
        at_once.expect("nobody waits for what is overdue").unwrap_err();
        for _ in 0..1000 {
            looks.begin(dead, |_| panic!("a second thread")).unwrap();
        }
        assert!(looks.exists(Path::new("/")).await.unwrap(), "others are not held up");
        answer.send(true).unwrap();
        while looks.begin(dead, |_| false).is_ok_and(|look| *look.borrow() == Look::Overdue) {
            tokio::task::yield_now().await;
        }
        assert!(!looks.ask(dead, LOOK_MAX, |_| false).await.unwrap(), "it is asked anew");
    }

    #[tokio::test]
    async fn whoever_comes_while_a_path_is_looked_at_hears_the_same() {
        let (looks, slow) = (PathChecks::default(), Path::new("/net/slow"));
        let answer = looks.hang(slow);
        let waiting = looks.ask(slow, LOOK_MAX, |_| panic!("a second thread"));
        let (found, sent) = tokio::join!(waiting, async { answer.send(true) });
        sent.unwrap();
        assert!(found.unwrap());
    }

    #[tokio::test]
    async fn there_are_so_many_threads_and_no_more() {
        let looks = PathChecks::default();
        let (end, waits) = mpsc::channel::<()>();
        let waits = Arc::new(Mutex::new(waits));
        for number in 0..LOOKS_MAX {
            let waits = Arc::clone(&waits);
            let wait = move |_: &Path| waits.lock().unwrap().recv().is_ok();
            looks.begin(&PathBuf::from(number.to_string()), wait).unwrap();
        }
        let fault = looks.exists(Path::new("/")).await.unwrap_err();
        assert_eq!(fault.message, "cannot look at /: 64 other paths do not answer");
        drop(end);
        while looks.exists(Path::new("/")).await.is_err() {
            tokio::task::yield_now().await;
        }
    }
}
