//! Processes as /proc shows them. A pid alone is never trusted: it may have been given to another
//! process since.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::path::Path;
use std::time::Duration;

const POLL: Duration = Duration::from_millis(20);

/// A process, told from a later one with the same pid by its start time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    started: u64,
}

impl Process {
    /// Finds the process that has this pid now. A zombie has ended.
    pub(crate) fn with_pid(pid: i32) -> Option<Self> {
        let (state, _parent, started) = stat(pid)?;
        (state != 'Z' && state != 'X').then_some(Self { pid, started })
    }

    pub(crate) fn is_alive(self) -> bool {
        Self::with_pid(self.pid) == Some(self)
    }

    /// Sends a signal, if the process is still this one.
    pub(crate) fn signal(self, signal: Signal) {
        if self.is_alive() {
            // It may end in between: that is what the signal is for.
            let _gone = kill(Pid::from_raw(self.pid), signal);
        }
    }

    /// Waits until the process has ended; says whether it has.
    pub(crate) async fn ended_within(self, limit: Duration) -> bool {
        let mut waited = Duration::ZERO;
        while self.is_alive() {
            if limit <= waited {
                return false;
            }
            tokio::time::sleep(POLL).await;
            waited += POLL;
        }
        true
    }

    /// Waits until the parent has taken note of the end, too: until then the pid is in use.
    pub(crate) async fn reaped_within(self, limit: Duration) -> bool {
        let mut waited = Duration::ZERO;
        while stat(self.pid).is_some_and(|(_, _, started)| started == self.started) {
            if limit <= waited {
                return false;
            }
            tokio::time::sleep(POLL).await;
            waited += POLL;
        }
        true
    }

    pub(crate) fn children(self) -> Vec<Process> {
        let is_child = |pid: &i32| stat(*pid).is_some_and(|(_, parent, _)| parent == self.pid);
        pids().filter(is_child).filter_map(Process::with_pid).collect()
    }
}

/// Finds the processes whose program and arguments `wanted` accepts.
pub(crate) fn find(wanted: impl Fn(&str, &[String]) -> bool) -> Vec<Process> {
    let matches = |pid: &i32| {
        let Ok(line) = fs::read(format!("/proc/{pid}/cmdline")) else { return false };
        let words = line.split(|byte| *byte == 0).map(String::from_utf8_lossy);
        let words: Vec<String> = words.map(std::borrow::Cow::into_owned).collect();
        let Some((program, arguments)) = words.split_first() else { return false };
        let name = Path::new(program).file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| wanted(name, arguments))
    };
    pids().filter(matches).filter_map(Process::with_pid).collect()
}

/// Says whether `value` follows `flag` in a command line.
pub(crate) fn has_flag(arguments: &[String], flag: &str, value: &Path) -> bool {
    arguments.windows(2).any(|pair| pair[0] == flag && Path::new(&pair[1]) == value)
}

fn pids() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// State, parent and start time. The name in between may hold spaces and brackets.
fn stat(pid: i32) -> Option<(char, i32, u64)> {
    let line = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = line[line.rfind(')')? + 1..].split_whitespace().collect();
    let state = fields.first()?.chars().next()?;
    Some((state, fields.get(1)?.parse().ok()?, fields.get(19)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pid_that_was_given_away_is_another_process() {
        let me = Process::with_pid(i32::try_from(std::process::id()).unwrap()).unwrap();
        assert!(me.is_alive());
        assert!(!Process { started: me.started + 1, ..me }.is_alive());
    }
}
