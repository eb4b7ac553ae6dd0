//! The cgroup above our containers' own, in every hierarchy (one of v2, or many of v1).

use anyhow::{Context, Result};
use nix::errno::Errno;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Removes a cgroup, e.g. `/skep`, with those below it. Nothing may run in them.
///
/// # Errors
/// When something still runs there.
pub(crate) fn remove(cgroup: &str) -> Result<()> {
    everywhere(cgroup, remove_tree)
}

/// Removes a cgroup where nothing runs in it or below it; else it stays.
///
/// # Errors
/// When the kernel refuses for another reason than that it is in use.
pub(crate) fn remove_unused(cgroup: &str) -> Result<()> {
    everywhere(cgroup, |folder| match fs::remove_dir(folder) {
        Err(error) if in_use(&error) => Ok(()),
        other => other,
    })
}

fn in_use(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(errno, Some(Errno::EBUSY | Errno::ENOTEMPTY))
}

fn everywhere(cgroup: &str, work: impl Fn(&Path) -> io::Result<()>) -> Result<()> {
    let root = PathBuf::from("/sys/fs/cgroup");
    let hierarchies = fs::read_dir(&root).into_iter().flatten().flatten().map(|entry| entry.path());
    for hierarchy in hierarchies.chain([root]) {
        let folder = hierarchy.join(cgroup.trim_start_matches('/'));
        match work(&folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot remove {}", folder.display()));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Only folders can be removed there, the deepest first.
fn remove_tree(cgroup: &Path) -> io::Result<()> {
    for entry in fs::read_dir(cgroup)?.flatten().filter(|entry| entry.path().is_dir()) {
        remove_tree(&entry.path())?;
    }
    fs::remove_dir(cgroup)
}
