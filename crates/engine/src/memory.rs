//! Files of a container that are in memory alone: secrets and configs.
//!
//! They are on a tmpfs of the container's own, in its run directory, which is there as long as the
//! container runs, and only root looks into. The kernel does not swap it out: where tmpfs cannot
//! promise that (before Linux 6.4), it is a ramfs, which never is.

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use types::Payload;

/// The folder in a container's run directory.
const FOLDER: &str = "files";
/// The folder there of shared memory that other containers may have.
const SHM: &str = "shm";
/// The largest page that a kernel has: a file takes whole ones. What is not written takes no memory.
const PAGE: usize = 64 << 10;

/// Tmpfs cannot be told so later, nor be told otherwise.
const NO_SWAP: &str = "noswap";

/// A file that a container gets and nobody writes to a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryFile {
    /// Its place in the container.
    pub target: PathBuf,
    pub uid: u32,
    pub gid: u32,
    pub mode: u32,
    pub data: Payload,
}

/// Where a file is on the node, and in the container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) source: PathBuf,
    pub(crate) target: PathBuf,
    /// Its mode says that it may be run.
    pub(crate) is_program: bool,
}

impl MemoryFile {
    fn is_program(&self) -> bool {
        self.mode & 0o111 != 0
    }
}

/// Puts the files into memory, below the run directory of their container.
pub(crate) fn write(run: &Path, files: &[MemoryFile]) -> io::Result<Vec<Place>> {
    if files.is_empty() {
        return Ok(Vec::new());
    }
    let folder = run.join(FOLDER);
    unmount(&folder)?;
    fs::create_dir_all(&folder)?;
    mount_memory(&folder, files)?;
    let written = files.iter().enumerate().map(|(number, file)| {
        let source = folder.join(number.to_string());
        let mut to = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&source)?;
        to.write_all(file.data.as_bytes())?;
        give(&to, file)?;
        Ok(Place { source, target: file.target.clone(), is_program: file.is_program() })
    });
    written.collect()
}

/// In this order: a change of owner may clear bits of the mode.
fn give(to: &File, file: &MemoryFile) -> io::Result<()> {
    fchown(to, Some(file.uid), Some(file.gid))?;
    to.set_permissions(Permissions::from_mode(file.mode))
}

/// Writes other bytes into the files that are there, in the same order: they are bound into the container,
/// each by itself, so that another file in its place would not be seen there. Who reads at that very moment
/// may see a part of each.
pub(crate) fn replace(run: &Path, files: &[MemoryFile]) -> io::Result<()> {
    let folder = run.join(FOLDER);
    let there = fs::read_dir(&folder)?.map(|entry| Ok(entry?.metadata()?.len()));
    let there = there.collect::<io::Result<Vec<u64>>>()?;
    if there.len() != files.len() {
        let text = format!("the container has {} files, and not {}", there.len(), files.len());
        return Err(io::Error::other(text));
    }
    // The larger ones may be written before the others get smaller.
    let former = there.into_iter().map(|len| usize::try_from(len).unwrap_or(usize::MAX));
    let lens = files.iter().map(|file| file.data.len());
    let (flags, limits) = how_to_mount(files, former.chain(lens));
    let (none, limits) = (None::<&str>, format!("{limits},{NO_SWAP}"));
    match mount(none, &folder, none, flags | MsFlags::MS_REMOUNT, Some(limits.as_str())) {
        // A ramfs has no limits.
        Ok(()) | Err(Errno::EINVAL) => {}
        Err(error) => return Err(error.into()),
    }
    for (number, file) in files.iter().enumerate() {
        let to = OpenOptions::new().write(true).open(folder.join(number.to_string()))?;
        to.write_all_at(file.data.as_bytes(), 0)?;
        to.set_len(u64::try_from(file.data.len()).unwrap_or(u64::MAX))?;
    }
    Ok(())
}

/// With space for files of these sizes.
fn how_to_mount(files: &[MemoryFile], lens: impl Iterator<Item = usize>) -> (MsFlags, String) {
    let mut flags = MsFlags::MS_NODEV | MsFlags::MS_NOSUID;
    // What is bound from it can be run only where this can.
    flags.set(MsFlags::MS_NOEXEC, !files.iter().any(MemoryFile::is_program));
    let pages: usize = lens.map(|len| len.div_ceil(PAGE) + 1).sum();
    let limits = format!("mode=0700,size={},nr_inodes={}", pages * PAGE, files.len() + 2);
    (flags, limits)
}

fn mount_memory(folder: &Path, files: &[MemoryFile]) -> io::Result<()> {
    let (flags, limits) = how_to_mount(files, files.iter().map(|file| file.data.len()));
    let made =
        |kind: &str, options: &str| mount(Some(kind), folder, Some(kind), flags, Some(options));
    match made("tmpfs", &format!("{limits},{NO_SWAP}")) {
        Err(Errno::EINVAL) => Ok(made("ramfs", "mode=0700")?),
        made => Ok(made?),
    }
}

/// Where the shared memory of a container is that others may have.
pub(crate) fn shm(run: &Path) -> PathBuf {
    run.join(SHM)
}

/// Mounts a container's shared memory, so that others may have it.
pub(crate) fn share(run: &Path, bytes: u64) -> io::Result<()> {
    let folder = shm(run);
    unmount(&folder)?;
    fs::create_dir_all(&folder)?;
    let flags = MsFlags::MS_NODEV | MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    let options = format!("mode=1777,size={bytes}");
    Ok(mount(Some("shm"), &folder, Some("tmpfs"), flags, Some(options.as_str()))?)
}

/// Takes a container's files out of memory; that there are none is fine.
pub(crate) fn remove(run: &Path) -> io::Result<()> {
    unmount(&run.join(FOLDER))?;
    unmount(&shm(run))
}

fn unmount(folder: &Path) -> io::Result<()> {
    // Lazily: nobody can keep it by holding a file open, and it goes with the last one that is.
    match umount2(folder, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
        Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => Ok(()),
        // Nobody has mounted anything who may not.
        Err(Errno::EPERM) if !nix::unistd::geteuid().is_root() => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Removes a container's run directory and what is mounted in it; that there is none is fine.
pub(crate) fn remove_run(run: &Path) -> io::Result<()> {
    remove(run)?;
    match fs::remove_dir_all(run) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    fn file(target: &str, data: &[u8]) -> MemoryFile {
        let (target, data) = (target.into(), data.to_vec().into());
        MemoryFile { target, uid: 7, gid: 8, mode: 0o440, data }
    }

    #[test]
    fn files_are_in_memory_alone_and_go_with_the_run_directory() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let root = tempfile::tempdir().unwrap();
        let run = root.path().join("c");
        let large = vec![9; 600 << 10];
        for _ in 0..2 {
            // The second time over what a start that failed has left.
            let files = [file("/run/secrets/a", b"one"), file("/b", &large)];
            let places = write(&run, &files).unwrap();
            assert_eq!(places[1].target, PathBuf::from("/b"));
            assert_eq!(fs::read(&places[0].source).unwrap(), b"one");
            assert_eq!(fs::read(&places[1].source).unwrap(), large);
            let about = fs::metadata(&places[0].source).unwrap();
            assert_eq!((about.uid(), about.gid(), about.mode() & 0o7777), (7, 8, 0o440));
        }
        // Others take their place, larger and smaller ones.
        let same = File::open(run.join("files/0")).unwrap();
        replace(&run, &[file("/run/secrets/a", &vec![8; 900 << 10]), file("/b", b"2")]).unwrap();
        assert_eq!(fs::read(run.join("files/1")).unwrap(), b"2");
        assert_eq!(io::read_to_string(same).unwrap().len(), 900 << 10, "it is the same file");
        let fewer = replace(&run, &[file("/b", b"2")]).unwrap_err().to_string();
        assert_eq!(fewer, "the container has 2 files, and not 1");
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let folder = run.join(FOLDER).display().to_string();
        let own: Vec<&str> = mounts.lines().filter(|line| line.contains(&folder)).collect();
        assert_eq!(own.len(), 1, "{own:?}");
        for option in ["nosuid", "nodev", "noexec"] {
            assert!(own[0].contains(option), "{own:?}");
        }
        assert!(own[0].contains("noswap") || own[0].contains(" ramfs "), "{own:?}");
        remove_run(&run).unwrap();
        assert!(!run.exists());
        assert!(!fs::read_to_string("/proc/self/mounts").unwrap().contains(&folder));
        assert!(remove(&run).is_ok() && remove_run(&run).is_ok(), "there is none");
        // What cannot be taken out of memory is an error, for somebody to be told.
        fs::write(&run, "in the way").unwrap();
        assert!(remove(&run).is_err() && remove_run(&run).is_err());
    }

    /// A config that is a script is run as an entrypoint, or to see whether a container is healthy.
    #[test]
    #[expect(clippy::disallowed_methods, reason = "tests run programs")]
    fn what_may_be_run_by_its_mode_can_be_run() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let root = tempfile::tempdir().unwrap();
        let run = root.path().join("c");
        let script = MemoryFile { mode: 0o555, ..file("/entry.sh", b"#!/bin/sh\nexit 7\n") };
        let places = write(&run, &[script, file("/other", b"x")]).unwrap();
        assert_eq!([places[0].is_program, places[1].is_program], [true, false]);
        let ended = std::process::Command::new(&places[0].source).status().unwrap();
        assert_eq!(ended.code(), Some(7));
        remove_run(&run).unwrap();
    }

    #[test]
    fn a_container_without_files_has_nothing_mounted() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(write(root.path(), &[]).unwrap(), []);
        assert!(!root.path().join(FOLDER).exists());
    }
}
