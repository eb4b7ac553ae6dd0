//! What is mounted on this machine, as the kernel's table has it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// What is mounted below these directories, the deepest first.
pub fn mounts_below(directories: &[&Path]) -> Vec<PathBuf> {
    // The kernel's table has paths without links in them.
    let real = |directory: &&Path| fs::canonicalize(directory).ok();
    let directories: Vec<PathBuf> = directories.iter().filter_map(real).collect();
    let below = |mount: &PathBuf| {
        directories.iter().any(|directory| mount.starts_with(directory) && mount != directory)
    };
    let mut mounts: Vec<PathBuf> = table().unwrap_or_default().into_iter().filter(below).collect();
    mounts.sort_by_key(|mount| std::cmp::Reverse(mount.components().count()));
    mounts
}

/// Says whether something is mounted at a path. What is mounted there is not looked at: it may be a
/// file system that does not answer.
pub fn is_mounted(path: &Path) -> io::Result<bool> {
    let parent = path.parent().map(fs::canonicalize).transpose()?.unwrap_or_default();
    let real = parent.join(path.file_name().unwrap_or_default());
    Ok(table()?.contains(&real))
}

/// Where all mounts of this process's namespace are.
fn table() -> io::Result<Vec<PathBuf>> {
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    Ok(table.lines().filter_map(|line| line.split(' ').nth(4)).map(unescape).collect())
}

/// The kernel writes spaces and the like in octal.
fn unescape(text: &str) -> PathBuf {
    let mut plain = text.to_owned();
    for (code, character) in [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")] {
        plain = plain.replace(code, character);
    }
    PathBuf::from(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_mounted_is_found_and_a_folder_is_no_mount() {
        assert!(is_mounted(Path::new("/proc")).unwrap());
        let folder = tempfile::tempdir().unwrap();
        assert!(!is_mounted(folder.path()).unwrap());
        assert!(!is_mounted(&folder.path().join("missing")).unwrap());
        assert!(mounts_below(&[folder.path()]).is_empty());
        assert_eq!(unescape("/a\\040b\\134040"), PathBuf::from("/a b\\040"));
    }
}
