//! Processes that we started and that outlive us: known by a pid file and their arguments. And this
//! one's memory.

use anyhow::{Result, bail};
use host::Process;
use nix::sys::signal::Signal;
use std::fs;
use std::path::Path;
use std::time::Duration;

/// How long a process may take to end.
const END_MAX: Duration = Duration::from_secs(30);

/// The process whose pid is in a file, if it lives and is ours: `mark` is among its arguments.
pub(crate) fn running(pid_file: &Path, mark: &str) -> Option<Process> {
    let pid: i32 = fs::read_to_string(pid_file).ok()?.trim().parse().ok()?;
    let process = Process::with_pid(pid)?;
    let arguments = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let ours = arguments.split(|byte| *byte == 0).any(|word| word == mark.as_bytes());
    ours.then_some(process)
}

/// This process has keys in memory: where it crashes, none of it goes into a file. Programs that it
/// starts are none of that.
///
/// # Errors
/// When the kernel refuses.
pub(crate) fn leave_no_core() -> Result<()> {
    Ok(nix::sys::prctl::set_dumpable(false)?)
}

/// Ends a process and waits until it is gone.
pub(crate) async fn end(process: Process, signal: Signal) -> Result<()> {
    process.signal(signal);
    if !process.ended_within(END_MAX).await {
        bail!("process {} did not end within {END_MAX:?}", process.pid());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crash_leaves_nothing_of_the_memory() {
        assert!(nix::sys::prctl::get_dumpable().unwrap());
        leave_no_core().unwrap();
        assert!(!nix::sys::prctl::get_dumpable().unwrap());
    }
}
