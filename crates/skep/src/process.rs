//! Processes that we started and that outlive us: known by a pid file and their arguments.

use anyhow::{Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::path::Path;
use std::time::Duration;

/// How long a process may take to end.
const END_MAX: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(10);

/// The pid in a file, if that process lives and is ours: `mark` is among its arguments.
pub(crate) fn running(pid_file: &Path, mark: &str) -> Option<Pid> {
    let pid: i32 = fs::read_to_string(pid_file).ok()?.trim().parse().ok()?;
    let arguments = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let ours = arguments.split(|byte| *byte == 0).any(|word| word == mark.as_bytes());
    ours.then_some(Pid::from_raw(pid))
}

/// Ends a process and waits until it is gone.
pub(crate) async fn end(pid: Pid, signal: Signal) -> Result<()> {
    if kill(pid, signal).is_err() {
        return Ok(());
    }
    let gone = async {
        while alive(pid) {
            tokio::time::sleep(POLL).await;
        }
    };
    if tokio::time::timeout(END_MAX, gone).await.is_err() {
        bail!("process {pid} did not end within {END_MAX:?}");
    }
    Ok(())
}

/// Says whether a process is there and no zombie.
pub(crate) fn alive(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    state.is_some_and(|state| state != 'Z')
}
