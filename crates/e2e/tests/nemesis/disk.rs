//! A disk of its own below the log of one manager: it is small, and can be full or slow.
//!
//! It is a file with a file system in it. Frozen, that takes no writes until it is thawed, and whoever
//! syncs waits, as for a disk that is busy.

use e2e::Lab;
use nix::mount::{MntFlags, umount2};
use nix::sys::statvfs::statvfs;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The manager whose log is on it.
pub(crate) const SMALL: u8 = 5;
/// Its size, and what is left of it when it is full: less than the log keeps free.
const BYTES: u64 = 128 << 20;
const LEFT_BYTES: u64 = 8 << 20;

/// Dropped, it is not there any more.
pub(crate) struct SmallDisk(PathBuf);

fn log_of(lab: &Lab, node: u8) -> PathBuf {
    lab.folder().join(format!("data/node-{node}/raft"))
}

#[expect(clippy::disallowed_methods, reason = "tests run programs")]
fn run(program: &str, arguments: &[&str], place: &Path) {
    let status = Command::new(program).args(arguments).arg(place).status().unwrap();
    assert!(status.success(), "{program} {arguments:?} {}", place.display());
}

impl SmallDisk {
    pub(crate) fn under(lab: &Lab) -> Self {
        let (log, kept) = (log_of(lab, SMALL), lab.folder().join("kept"));
        lab.lab(&["kill", &format!("node-{SMALL}")]).good();
        fs::rename(&log, &kept).unwrap();
        fs::create_dir(&log).unwrap();
        let image = lab.folder().join("disk");
        File::create(&image).unwrap().set_len(BYTES).unwrap();
        run("mkfs.ext4", &["-q", "-m", "0"], &image);
        run("mount", &["-o", "loop", &image.display().to_string()], &log);
        let disk = Self(log);
        for file in fs::read_dir(&kept).unwrap() {
            let file = file.unwrap();
            fs::copy(file.path(), disk.0.join(file.file_name())).unwrap();
        }
        fs::remove_dir_all(&kept).unwrap();
        lab.lab(&["start", &format!("node-{SMALL}")]).good();
        disk
    }

    /// Fills it.
    pub(crate) fn fill(lab: &Lab) {
        let disk = log_of(lab, SMALL);
        let mut file = File::create(disk.join("full")).unwrap();
        let free = || {
            let disk = statvfs(&disk).unwrap();
            disk.blocks_available() * disk.fragment_size()
        };
        while free() > LEFT_BYTES {
            file.write_all(&[0; 16 << 10]).unwrap();
        }
    }

    pub(crate) fn empty(lab: &Lab) {
        fs::remove_file(log_of(lab, SMALL).join("full")).unwrap();
    }

    /// Takes no writes until it is thawed.
    pub(crate) fn freeze(&self) {
        run("fsfreeze", &["--freeze"], &self.0);
    }

    pub(crate) fn thaw(&self) {
        run("fsfreeze", &["--unfreeze"], &self.0);
    }
}

impl Drop for SmallDisk {
    #[expect(clippy::disallowed_methods, reason = "tests run programs")]
    fn drop(&mut self) {
        // Who waits for a frozen one cannot be killed. That it is not frozen is an error.
        Command::new("fsfreeze").arg("--unfreeze").arg(&self.0).output().ok();
        umount2(&self.0, MntFlags::MNT_DETACH).ok();
    }
}
