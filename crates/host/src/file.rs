//! Files that are replaced whole.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// Puts a new file of this mode in the place of an old one. When it returns, the new one is on the
/// disk; after a crash before that, either is there, whole. Whoever has the old one open keeps it.
///
/// The new one is written beside it first, as `PATH.new`: one writer at a time. It is always a file of
/// our own: whoever else may write in the folder, and has put a file or a link there before, neither
/// has it open nor sends what is written elsewhere.
pub fn replace(path: &Path, bytes: impl AsRef<[u8]>, mode: u32) -> io::Result<()> {
    let new = path.with_added_extension("new");
    remove_leftover(&new)?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&new)?;
    // Whatever the process's mask is.
    file.set_permissions(Permissions::from_mode(mode))?;
    file.write_all(bytes.as_ref())?;
    file.sync_all()?;
    drop(file);
    fs::rename(&new, path)?;
    // The name is the folder's.
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

/// Removes what a crash, or somebody else, has left where something new is about to be made.
pub(crate) fn remove_leftover(new: &Path) -> io::Result<()> {
    match fs::remove_file(new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

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

    #[test]
    fn what_somebody_has_put_in_the_way_neither_hears_of_it_nor_leads_elsewhere() {
        let folder = tempfile::tempdir().unwrap();
        let [path, new, other] =
            ["backup", "backup.new", "other"].map(|name| folder.path().join(name));
        fs::write(&new, "").unwrap();
        let mut open = File::open(&new).unwrap();
        replace(&path, "secret", 0o600).unwrap();
        let mut heard = String::new();
        open.read_to_string(&mut heard).unwrap();
        assert_eq!((heard.as_str(), fs::read_to_string(&path).unwrap().as_str()), ("", "secret"));

        fs::write(&other, "of somebody else").unwrap();
        std::os::unix::fs::symlink(&other, &new).unwrap();
        replace(&path, "secret 2", 0o600).unwrap();
        assert_eq!(fs::read_to_string(&other).unwrap(), "of somebody else");
        assert!(fs::symlink_metadata(&path).unwrap().is_file());
        assert_eq!(fs::read_to_string(&path).unwrap(), "secret 2");
    }
}
