//! Limits on what images take of the machine: whoever made one may not have meant well.
//!
//! A file system is never filled by an image: what the rest of the machine needs stays free, while
//! an archive is put aside, unpacked, or a layer is applied. A few bytes can become very many.

use crate::error::Error;
use crate::spool;
use host::{Disk, Stock};
use std::path::Path;
use std::time::Duration;

/// What stays free: a twentieth of the file system, and at most so much.
const KEPT_MAX: u64 = 2 << 30;
const KEPT_SHARE: u64 = 20;
/// The same of the files that can be made.
const KEPT_FILES_MAX: u64 = 50_000;
/// Between two looks while somebody else writes.
const LOOK: Duration = Duration::from_millis(250);
/// After so many bytes, whoever writes looks again.
pub(crate) const STEP: u64 = 64 << 20;

/// Tells whoever writes when it is time to look: before the first byte, and after each [`STEP`].
#[derive(Debug)]
pub(crate) struct Steps(u64);

impl Steps {
    pub(crate) fn new() -> Self {
        Self(STEP)
    }

    /// Says whether a look is due before so many more bytes are written.
    pub(crate) fn is_due(&mut self, bytes: u64) -> bool {
        let due = STEP <= self.0;
        let unlooked = if due { 0 } else { self.0 };
        self.0 = unlooked.saturating_add(bytes);
        due
    }
}

/// Says whether `wanted` can be taken without touching what is kept.
fn gives(stock: Stock, wanted: u64, kept_max: u64) -> bool {
    let kept = (stock.total / KEPT_SHARE).min(kept_max);
    stock.total == 0 || kept.saturating_add(wanted) <= stock.free
}

/// As [`check`], where a file system that does not answer may hold up nobody else.
pub(crate) async fn check_async(path: &Path, wanted: u64) -> Result<(), Error> {
    let path = path.to_owned();
    spool::blocking(move || check(&path, wanted)).await
}

/// Refuses to write `wanted` more bytes at a path where that would leave too little.
pub(crate) fn check(path: &Path, wanted: u64) -> Result<(), Error> {
    let disk = Disk::at(path).map_err(|error| Error::file("look at", path, error))?;
    let what = if !gives(disk.bytes, wanted, KEPT_MAX) {
        "space"
    } else if !gives(disk.files, 0, KEPT_FILES_MAX) {
        "room for files"
    } else {
        return Ok(());
    };
    Err(Error::Full { what, path: path.to_owned() })
}

/// Looks while somebody else writes there; ends with the fault when there is too little left.
pub(crate) async fn watch_until_full(path: &Path) -> Error {
    loop {
        tokio::time::sleep(LOOK).await;
        if let Err(error) = check_async(path, 0).await {
            return error;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_of_a_file_system_stays_free() {
        let small = Stock { total: 1000, free: 60 };
        assert!(gives(small, 10, KEPT_MAX) && !gives(small, 11, KEPT_MAX));
        // Of a large one, no more than the maximum.
        let large = Stock { total: 1000 << 30, free: 3 << 30 };
        assert!(gives(large, 1 << 30, KEPT_MAX) && !gives(large, 2 << 30, KEPT_MAX));
        assert!(!gives(large, u64::MAX, KEPT_MAX));
        // Some file systems do not count files.
        assert!(gives(Stock { total: 0, free: 0 }, 0, KEPT_FILES_MAX));
    }

    #[test]
    fn whoever_writes_looks_first_and_after_each_step() {
        let mut steps = Steps::new();
        let due: Vec<bool> = (0..6).map(|_| steps.is_due(STEP / 2)).collect();
        assert_eq!(due, [true, false, true, false, true, false]);
    }

    #[test]
    fn what_cannot_fit_is_refused_before_it_is_written() {
        let here = tempfile::tempdir().unwrap();
        check(here.path(), 0).unwrap();
        let refused = check(here.path(), u64::MAX / 2).unwrap_err();
        assert!(refused.to_string().contains("too little space"), "{refused}");
    }
}
