//! Sockets that are found at a path.

use crate::file::remove_leftover;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket,
};
use std::fs::{self, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixListener;
use std::path::Path;

/// Connections that wait until they are accepted.
const QUEUE: i32 = 1024;

/// Listens at `path`, in the place of what was there, for root and `group` as `mode` says. Nobody can
/// connect before the socket has both, whatever the process's mask is: until then it does not listen.
///
/// It is made beside it first, as `PATH.new`: one at a time.
pub fn listen_at(path: &Path, mode: u32, group: Option<u32>) -> io::Result<UnixListener> {
    let new = path.with_added_extension("new");
    remove_leftover(&new)?;
    let fd = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    bind(fd.as_raw_fd(), &UnixAddr::new(&new)?)?;
    if group.is_some() {
        chown(&new, None, group)?;
    }
    fs::set_permissions(&new, Permissions::from_mode(mode))?;
    listen(&fd, Backlog::new(QUEUE)?)?;
    fs::rename(&new, path)?;
    Ok(UnixListener::from(fd))
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::fcntl::OFlag;
    use std::fs::OpenOptions;
    use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
    use std::os::unix::net::UnixStream;
    use std::sync::atomic::{AtomicBool, Ordering};

    #[test]
    fn a_socket_takes_the_place_of_the_one_before_with_its_mode() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("api.sock");
        // A crash has left it.
        fs::write(folder.path().join("api.sock.new"), "").unwrap();
        let own = fs::metadata(folder.path()).unwrap().gid();
        for mode in [0o600, 0o660] {
            let listener = listen_at(&path, mode, Some(own)).unwrap();
            UnixStream::connect(&path).unwrap();
            listener.accept().unwrap();
            let is = fs::metadata(&path).unwrap();
            assert_eq!((is.permissions().mode() & 0o777, is.gid()), (mode, own));
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    /// Connects to whatever is in the folder, again and again; says which modes the sockets had that
    /// let it in. A mode only gets stricter, so it is looked at after that.
    fn intrude(folder: &Path, is_over: &AtomicBool) -> Vec<u32> {
        let mut seen = Vec::new();
        while !is_over.load(Ordering::Relaxed) {
            for name in ["api.sock", "api.sock.new"] {
                let mut options = OpenOptions::new();
                options.read(true).custom_flags(OFlag::O_PATH.bits());
                let Ok(found) = options.open(folder.join(name)) else { continue };
                let same = format!("/proc/self/fd/{}", found.as_raw_fd());
                let mode = |_| found.metadata().unwrap().mode() & 0o777;
                seen.extend(UnixStream::connect(same).map(mode).ok().filter(|mode| *mode != 0o600));
            }
        }
        seen
    }

    #[test]
    fn nobody_connects_before_it_has_its_mode() {
        let (folder, is_over) = (tempfile::tempdir().unwrap(), AtomicBool::new(false));
        let path = folder.path().join("api.sock");
        let seen = std::thread::scope(|scope| {
            let intruder = scope.spawn(|| intrude(folder.path(), &is_over));
            for _ in 0..2_000 {
                drop(listen_at(&path, 0o600, None).unwrap());
            }
            is_over.store(true, Ordering::Relaxed);
            intruder.join().unwrap()
        });
        assert_eq!(seen, [0_u32; 0]);
    }
}
