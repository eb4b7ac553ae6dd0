//! Descriptors that programs which we start, and netfilter's library, must not have.
//!
//! Everything that this workspace opens is close-on-exec; a library may know nothing of that. A
//! socket that is inherited keeps the namespace alive which it was opened in.

use crate::error::Error;
use std::io;
use std::process::Command;

/// The first after standard input, output and error.
const FIRST: libc::c_uint = 3;

/// Makes the command's process start with standard input, output and error alone.
pub fn sealed(command: &mut Command) -> &mut Command {
    use std::os::unix::process::CommandExt;
    // SAFETY: between fork and exec the closure makes one system call and allocates nothing.
    unsafe { command.pre_exec(close_on_exec) }
}

/// Gives this thread, for good, a table of descriptors of its own, with the first three alone: what
/// it opens gets low numbers, and no program that another thread starts inherits it.
///
/// Nothing that has a descriptor may come into such a thread or leave it.
pub(crate) fn leave() -> Result<(), Error> {
    close_range(libc::CLOSE_RANGE_UNSHARE)
        .map_err(|source| Error::system("leave the process's descriptors", source))
}

/// Marks all descriptors of this process but the first three as close-on-exec.
fn close_on_exec() -> io::Result<()> {
    close_range(libc::CLOSE_RANGE_CLOEXEC)
}

fn close_range(flags: libc::c_uint) -> io::Result<()> {
    let flags = libc::c_int::try_from(flags).map_err(io::Error::other)?;
    // SAFETY: the call reads no memory. With either flag, no descriptor is closed that others have:
    // one that is marked stays open, and a table of one's own is closed alone.
    let outcome = unsafe { libc::close_range(FIRST, libc::c_uint::MAX, flags) };
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

    #[test]
    #[expect(clippy::disallowed_methods, reason = "it looks at what a program inherits")]
    fn a_sealed_command_starts_with_the_three_standard_descriptors() {
        let file = File::open("/dev/null").unwrap();
        // SAFETY: the descriptor is open; the new one is owned by nobody else.
        let leaky = unsafe { OwnedFd::from_raw_fd(libc::dup(file.as_raw_fd())) };
        let test = format!("test -e /proc/self/fd/{}", leaky.as_raw_fd());
        let mut command = Command::new("sh");
        command.args(["-c", &test]);
        assert!(command.status().unwrap().success(), "it is inherited otherwise");
        assert!(!sealed(&mut command).status().unwrap().success());
    }
}
