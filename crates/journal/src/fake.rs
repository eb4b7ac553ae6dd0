//! A disk that hangs, for tests of this crate and of its users.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, PoisonError};

static HUNG: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());
static RELEASED: Condvar = Condvar::new();

/// The disk of one journal, which takes nothing until this is dropped.
#[derive(Debug)]
pub struct Hung(PathBuf);

/// Lets no write to the journal at `path` come to its end.
pub fn hang(path: &Path) -> Hung {
    HUNG.lock().unwrap_or_else(PoisonError::into_inner).insert(path.to_owned());
    Hung(path.to_owned())
}

impl Drop for Hung {
    fn drop(&mut self) {
        HUNG.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.0);
        RELEASED.notify_all();
    }
}

/// Waits while the disk hangs.
pub(crate) fn wait(path: &Path) {
    let hung = HUNG.lock().unwrap_or_else(PoisonError::into_inner);
    let released = RELEASED.wait_while(hung, |hung| hung.contains(path));
    drop(released.unwrap_or_else(PoisonError::into_inner));
}
