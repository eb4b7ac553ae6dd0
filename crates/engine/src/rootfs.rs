//! Looks into a container's file system from outside.
//!
//! Invariant: no link in it leads out of it. Paths are opened with RESOLVE_IN_ROOT (openat2(2)),
//! also while the container runs and may change them at any moment.

use crate::users::Accounts;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{
    FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt, lchown, symlink,
};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// No /etc/passwd is larger.
const ACCOUNTS_MAX: u64 = 4 << 20;
/// Folders in folders, when a volume is filled.
const DEPTH_MAX: usize = 64;

/// Reads who is known in a container.
pub(crate) fn accounts(root: &Path) -> io::Result<Accounts> {
    Ok(Accounts { passwd: text(root, "etc/passwd")?, group: text(root, "etc/group")? })
}

fn text(root: &Path, path: &str) -> io::Result<String> {
    let place = match open(root, path, OFlag::O_PATH) {
        Ok(place) => place,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(String::new()),
        Err(error) => return Err(error),
    };
    // To open a device is to use it, and containers and images can have any: looked at first.
    if !place.metadata()?.is_file() {
        return Err(io::Error::other(format!("/{path} is no file")));
    }
    let file = File::open(format!("/proc/self/fd/{}", place.as_raw_fd()))?;
    let mut content = Vec::new();
    file.take(ACCOUNTS_MAX).read_to_end(&mut content)?;
    Ok(String::from_utf8_lossy(&content).into_owned())
}

fn open(root: &Path, path: &str, flags: OFlag) -> io::Result<File> {
    let root = File::open(root)?;
    let how = OpenHow::new()
        .flags(flags | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let inside = path.trim_start_matches('/');
    let inside = if inside.is_empty() { "." } else { inside };
    Ok(File::from(openat2(&root, inside, how)?))
}

/// Fills an empty volume with what the image has at its target, with owners and modes, as Docker
/// does. Nothing happens where the volume holds something or the image has nothing there.
///
/// The copy is made at a place of its own and moved in when it is whole; an earlier move that was
/// interrupted is finished, whichever node's it was, and copies that others gave up go. The volume's
/// folder itself stays: it may be mounted already.
pub(crate) fn fill(root: &Path, target: &str, volume: &Path, place: Halfway) -> io::Result<()> {
    let (half, whole) = place.of(volume);
    if fs::symlink_metadata(&whole).is_ok_and(|found| found.is_dir()) {
        return move_in(&whole, volume);
    }
    // A large folder is not read to its end.
    let entries = fs::read_dir(volume)?.flatten().take(LOOK_MAX);
    let is_copy = |entry: &fs::DirEntry| entry.file_name().to_string_lossy().starts_with(HALFWAY);
    let (copies, others): (Vec<_>, Vec<_>) = entries.partition(is_copy);
    copies.iter().filter(|copy| is_given_up(copy)).for_each(|copy| {
        let _gone = fs::remove_dir_all(copy.path());
    });
    if !others.is_empty() {
        return Ok(());
    }
    let folder = match open(root, target, OFlag::O_RDONLY | OFlag::O_DIRECTORY) {
        Ok(folder) => folder,
        Err(error) if is_missing(&error) => return Ok(()),
        Err(error) => return Err(error),
    };
    // The open folder keeps its place, whatever its path was.
    let source = PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd()));
    match fs::remove_dir_all(&half) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => fs::create_dir(&half)?,
    }
    copy_folder(&source.join("."), &half, DEPTH_MAX)?;
    match fs::rename(&half, &whole) {
        // Another node was faster.
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {
            fs::remove_dir_all(&half)?;
        }
        renamed => renamed?,
    }
    move_in(&whole, volume)
}

/// Where a copy is while it is not in its volume yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Halfway {
    /// Of a folder of this node.
    Beside,
    /// Of a file system that is mounted there, as files can be moved only within one. Other nodes may
    /// fill it, too: each has a place of its own for its copy. Who is done first moves his in.
    Within,
}

/// How folders with copies begin that are not whole.
const HALFWAY: &str = ".skep-fill-";
/// A copy that nothing was added to for so long is nobody's any more.
const GIVEN_UP: Duration = Duration::from_hours(1);
/// Entries of a volume that are looked at.
const LOOK_MAX: usize = 1000;

impl Halfway {
    /// Where it is while it is copied, and when it is whole.
    fn of(self, volume: &Path) -> (PathBuf, PathBuf) {
        match self {
            Self::Beside => (beside(volume, "half"), beside(volume, "whole")),
            Self::Within => {
                let half = format!("{HALFWAY}{}-half", crate::clock::draw_id());
                (volume.join(half), volume.join(format!("{HALFWAY}whole")))
            }
        }
    }
}

fn beside(volume: &Path, state: &str) -> PathBuf {
    let mut path = volume.as_os_str().to_owned();
    path.push(".");
    path.push(state);
    path.into()
}

fn is_given_up(copy: &fs::DirEntry) -> bool {
    let changed = copy.metadata().and_then(|found| found.modified()).ok();
    changed.and_then(|time| time.elapsed().ok()).is_some_and(|age| GIVEN_UP < age)
}

/// Moves a whole copy into its volume. Another node may do the same at this moment, and be done.
fn move_in(whole: &Path, volume: &Path) -> io::Result<()> {
    // What containers put there is not followed anywhere.
    let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW;
    let folder = match File::options().read(true).custom_flags(flags.bits()).open(whole) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        opened => opened?,
    };
    // Listed first: the folder changes while it is emptied.
    let entries = fs::read_dir(format!("/proc/self/fd/{}", folder.as_raw_fd()))?;
    let entries: Vec<fs::DirEntry> = entries.collect::<io::Result<_>>()?;
    for entry in entries {
        let to = volume.join(entry.file_name());
        // A container that has the volume mounted may have been faster: its files are newer.
        if fs::symlink_metadata(&to).is_err() {
            unless_missing(fs::rename(entry.path(), to))?;
        }
    }
    copy_owner_and_mode(volume, &folder.metadata()?)?;
    match fs::remove_dir_all(whole) {
        // Another node's has taken its place.
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
        removed => unless_missing(removed),
    }
}

fn unless_missing(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn copy_folder(source: &Path, target: &Path, depth: usize) -> io::Result<()> {
    if depth == 0 {
        return Err(io::Error::other("folders are nested too deeply"));
    }
    for entry in fs::read_dir(source)? {
        let entry = entry?;
        let (from, to) = (entry.path(), target.join(entry.file_name()));
        let metadata = entry.metadata()?;
        let kind = metadata.file_type();
        if kind.is_dir() {
            fs::create_dir(&to)?;
            copy_folder(&from, &to, depth - 1)?;
            continue;
        }
        if kind.is_symlink() {
            symlink(fs::read_link(&from)?, &to)?;
            lchown(&to, Some(metadata.uid()), Some(metadata.gid()))?;
            continue;
        }
        if kind.is_fifo() || kind.is_socket() || kind.is_char_device() || kind.is_block_device() {
            continue;
        }
        fs::copy(&from, &to)?;
        copy_owner_and_mode(&to, &metadata)?;
    }
    copy_owner_and_mode(target, &fs::metadata(source)?)
}

/// Gives `path` the owner and mode that `like` has, in this order: a change of owner clears the set-id bits.
fn copy_owner_and_mode(path: &Path, like: &fs::Metadata) -> io::Result<()> {
    lchown(path, Some(like.uid()), Some(like.gid()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(like.mode() & 0o7777))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_do_not_lead_out_of_the_root() {
        let root = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("secret"), "root:x:7:7::/:\n").unwrap();
        fs::create_dir(root.path().join("etc")).unwrap();
        symlink(outside.path().join("secret"), root.path().join("etc/passwd")).unwrap();
        symlink(outside.path(), root.path().join("data")).unwrap();
        assert_eq!(accounts(root.path()).unwrap().passwd, "");
        let volume = tempfile::tempdir().unwrap();
        fill(root.path(), "/data", volume.path(), Halfway::Beside).unwrap();
        assert_eq!(fs::read_dir(volume.path()).unwrap().count(), 0);
    }

    #[test]
    fn an_empty_volume_is_filled_from_the_image_and_a_used_one_is_left_alone() {
        let root = tempfile::tempdir().unwrap();
        let data = root.path().join("var/data");
        fs::create_dir_all(data.join("sub")).unwrap();
        fs::write(data.join("sub/file"), "text").unwrap();
        fs::set_permissions(data.join("sub/file"), fs::Permissions::from_mode(0o640)).unwrap();
        fs::set_permissions(&data, fs::Permissions::from_mode(0o1777)).unwrap();
        symlink("sub/file", data.join("link")).unwrap();
        let volume = tempfile::tempdir().unwrap();
        fill(root.path(), "/var/data", volume.path(), Halfway::Beside).unwrap();
        assert_eq!(fs::read_to_string(volume.path().join("link")).unwrap(), "text");
        assert_eq!(fs::metadata(volume.path()).unwrap().mode() & 0o7777, 0o1777);
        let copied = fs::metadata(volume.path().join("sub/file")).unwrap();
        assert_eq!(copied.mode() & 0o7777, 0o640);
        assert!(
            !beside(volume.path(), "whole").exists() && !beside(volume.path(), "half").exists()
        );
        fs::write(data.join("later"), "").unwrap();
        fill(root.path(), "/var/data", volume.path(), Halfway::Beside).unwrap();
        assert!(!volume.path().join("later").exists());
    }

    #[test]
    fn a_volume_that_was_not_filled_to_the_end_is_filled_later() {
        let dir = tempfile::tempdir().unwrap();
        let (root, volume) = (dir.path().join("root"), dir.path().join("_data"));
        fs::create_dir_all(root.join("data")).unwrap();
        fs::create_dir(&volume).unwrap();
        fs::write(root.join("data/new"), "new").unwrap();
        // It ended while it copied.
        fs::create_dir(beside(&volume, "half")).unwrap();
        fs::write(beside(&volume, "half").join("part"), "").unwrap();
        fill(&root, "/data", &volume, Halfway::Beside).unwrap();
        assert!(volume.join("new").exists() && !volume.join("part").exists());
        // It ended while it moved.
        fs::create_dir(beside(&volume, "whole")).unwrap();
        fs::write(beside(&volume, "whole").join("rest"), "").unwrap();
        fs::write(beside(&volume, "whole").join("new"), "old").unwrap();
        fill(&root, "/data", &volume, Halfway::Beside).unwrap();
        assert!(volume.join("rest").exists());
        assert_eq!(fs::read_to_string(volume.join("new")).unwrap(), "new");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_volume_that_is_mounted_is_filled_from_within() {
        let dir = tempfile::tempdir().unwrap();
        let (root, volume) = (dir.path().join("root"), dir.path().join("share"));
        fs::create_dir_all(root.join("data")).unwrap();
        fs::create_dir(&volume).unwrap();
        fs::write(root.join("data/new"), "new").unwrap();
        // Another node ended while it copied.
        fs::create_dir(volume.join(".skep-fill-0-half")).unwrap();
        fill(&root, "/data", &volume, Halfway::Within).unwrap();
        assert_eq!(fs::read_to_string(volume.join("new")).unwrap(), "new");
        assert_eq!(fs::read_dir(&volume).unwrap().count(), 2);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
        fs::remove_file(volume.join("new")).unwrap();
        fs::write(volume.join("own"), "").unwrap();
        fill(&root, "/data", &volume, Halfway::Within).unwrap();
        assert!(!volume.join("new").exists());
    }

    #[test]
    fn a_mounted_volume_that_was_not_filled_to_the_end_is_filled_later() {
        let dir = tempfile::tempdir().unwrap();
        let (root, volume) = (dir.path().join("root"), dir.path().join("share"));
        let whole = volume.join(".skep-fill-whole");
        fs::create_dir_all(root.join("data")).unwrap();
        fs::create_dir_all(&whole).unwrap();
        fs::write(root.join("data/new"), "new").unwrap();
        // A node ended while it moved, after the first file, which has changed since.
        fs::write(volume.join("first"), "changed").unwrap();
        fs::write(whole.join("first"), "old").unwrap();
        fs::write(whole.join("rest"), "").unwrap();
        fill(&root, "/data", &volume, Halfway::Within).unwrap();
        assert_eq!(fs::read_to_string(volume.join("first")).unwrap(), "changed");
        assert!(volume.join("rest").exists() && !volume.join("new").exists());
        assert_eq!(fs::read_dir(&volume).unwrap().count(), 2);
        // A copy that was given up goes; one that is being made stays.
        for name in [".skep-fill-0-half", ".skep-fill-1-half"] {
            fs::create_dir(volume.join(name)).unwrap();
        }
        let old = std::time::UNIX_EPOCH + Duration::from_hours(2);
        File::open(volume.join(".skep-fill-0-half")).unwrap().set_modified(old).unwrap();
        fill(&root, "/data", &volume, Halfway::Within).unwrap();
        assert!(!volume.join(".skep-fill-0-half").exists());
        assert!(volume.join(".skep-fill-1-half").exists());
    }

    #[test]
    fn a_link_that_a_container_left_in_a_mounted_volume_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (root, volume) = (dir.path().join("root"), dir.path().join("share"));
        let precious = dir.path().join("precious");
        for folder in [&root.join("data"), &volume, &precious] {
            fs::create_dir_all(folder).unwrap();
        }
        fs::write(root.join("data/new"), "new").unwrap();
        fs::write(precious.join("file"), "").unwrap();
        symlink(&precious, volume.join(".skep-fill-whole")).unwrap();
        let _refused = fill(&root, "/data", &volume, Halfway::Within);
        move_in(&volume.join(".skep-fill-whole"), &volume).unwrap_err();
        assert!(precious.join("file").exists() && !volume.join("file").exists());
    }

    #[test]
    fn what_is_no_file_is_not_opened() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("etc")).unwrap();
        let passwd = root.path().join("etc/passwd");
        nix::unistd::mkfifo(&passwd, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(accounts(root.path()).unwrap_err().to_string().contains("no file"));
        fs::remove_file(&passwd).unwrap();
        if nix::unistd::geteuid().is_root() {
            use nix::sys::stat::{Mode, SFlag, makedev, mknod};
            // /dev/zero, which would be read without an end.
            mknod(&passwd, SFlag::S_IFCHR, Mode::S_IRWXU, makedev(1, 5)).unwrap();
            assert!(accounts(root.path()).unwrap_err().to_string().contains("no file"));
        }
    }
}
