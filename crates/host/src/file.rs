//! Files that are replaced whole.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// Puts a new file of this mode in the place of an old one. When it returns, the new one is on the
/// disk; after a crash before that, either is there, whole. Whoever has the old one open keeps it.
///
/// The new one is written beside it first, as `PATH.new`: one writer at a time.
pub fn replace(path: &Path, bytes: impl AsRef<[u8]>, mode: u32) -> io::Result<()> {
    let new = path.with_added_extension("new");
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&new)?;
    // Whatever the process's mask is, and also where a crash has left one with another mode.
    file.set_permissions(Permissions::from_mode(mode))?;
    file.write_all(bytes.as_ref())?;
    file.sync_all()?;
    drop(file);
    fs::rename(&new, path)?;
    // The name is the folder's.
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_new_file_is_whole_has_its_mode_and_leaves_nothing_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.json");
        // A crash has left it, for everybody to read.
        fs::write(folder.path().join("state.json.new"), "half of something longer").unwrap();
        for (text, mode) in [("first", 0o600), ("2nd", 0o666)] {
            replace(&path, text, mode).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, mode);
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn where_the_new_one_cannot_be_written_the_old_one_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.json");
        replace(&path, "old", 0o600).unwrap();
        fs::create_dir(folder.path().join("state.json.new")).unwrap();
        assert!(replace(&path, "new", 0o600).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
    }
}
