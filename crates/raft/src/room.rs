//! Whether the disk has room for the log.
//!
//! A full disk stops the log for good (a write that failed half-way is not to be trusted), and with
//! it the daemon. So changes are refused before that, while there is still some room: a refused
//! change leaves no trace, and changes are taken again as soon as there is room.

use nix::sys::statvfs::statvfs;
use std::path::{Path, PathBuf};
use types::Fault;

/// Room that must be left for changes to be taken: the log may need a good part of it for a
/// snapshot.
pub(crate) const RESERVE_BYTES: u64 = 32 << 20;

#[derive(Clone, Debug)]
pub(crate) struct Room {
    pub(crate) directory: PathBuf,
    pub(crate) reserve: u64,
}

impl Room {
    pub(crate) fn check(&self) -> Result<(), Fault> {
        match free_bytes(&self.directory) {
            Ok(free) if free < self.reserve => Err(Fault::unavailable(format!(
                "this manager's disk is full: {} has {} MiB left and the cluster's log needs {}; \
                 make room and try again",
                self.directory.display(),
                free >> 20,
                self.reserve >> 20,
            ))),
            Ok(_) => Ok(()),
            // Not to know is no reason to refuse: the write itself will tell.
            Err(error) => {
                tracing::warn!(%error, "cannot see how full the disk of the log is");
                Ok(())
            }
        }
    }
}

fn free_bytes(directory: &Path) -> Result<u64, nix::Error> {
    let stats = statvfs(directory)?;
    Ok(stats.blocks_available().saturating_mul(stats.fragment_size()))
}
