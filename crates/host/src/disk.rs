//! How much a file system has left.

use nix::sys::statvfs::statvfs;
use std::io;
use std::path::Path;

/// The file system that a path is on.
#[derive(Clone, Copy, Debug)]
pub struct Disk {
    pub bytes: Stock,
    pub files: Stock,
}

/// What a file system has of something. A total of 0: it does not say.
#[derive(Clone, Copy, Debug)]
pub struct Stock {
    pub total: u64,
    /// For those who are not root.
    pub free: u64,
}

impl Disk {
    /// Asks the file system. It blocks for as long as that does not answer.
    pub fn at(path: &Path) -> io::Result<Self> {
        let found = statvfs(path)?;
        let bytes = |blocks: u64| blocks.saturating_mul(found.fragment_size());
        Ok(Self {
            bytes: Stock { total: bytes(found.blocks()), free: bytes(found.blocks_available()) },
            files: Stock { total: found.files(), free: found.files_available() },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_has_no_more_free_than_it_has() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::at(folder.path()).unwrap();
        assert!(0 < disk.bytes.total && disk.bytes.free <= disk.bytes.total, "{disk:?}");
        assert!(Disk::at(&folder.path().join("missing")).is_err());
    }
}
