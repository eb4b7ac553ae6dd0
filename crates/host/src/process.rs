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
pub struct Process {
    pid: i32,
    started: u64,
}

impl Process {
    /// Finds the process that has this pid now. A zombie has ended.
    pub fn with_pid(pid: i32) -> Option<Self> {
        let Stat { state, started, .. } = Stat::read(pid)?;
        (state != 'Z' && state != 'X').then_some(Self { pid, started })
    }

    pub fn pid(self) -> i32 {
        self.pid
    }

    pub fn is_alive(self) -> bool {
        Self::with_pid(self.pid) == Some(self)
    }

    /// Sends a signal, if the process is still this one.
    pub fn signal(self, signal: Signal) {
        if self.is_alive() {
            // It may end in between: that is what the signal is for.
            let _gone = kill(Pid::from_raw(self.pid), signal);
        }
    }

    /// Waits until the process has ended; says whether it has.
    pub async fn ended_within(self, limit: Duration) -> bool {
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
    pub async fn reaped_within(self, limit: Duration) -> bool {
        let mut waited = Duration::ZERO;
        while Stat::read(self.pid).is_some_and(|stat| stat.started == self.started) {
            if limit <= waited {
                return false;
            }
            tokio::time::sleep(POLL).await;
            waited += POLL;
        }
        true
    }

    pub fn children(self) -> Vec<Process> {
        let is_child = |pid: &i32| Stat::read(*pid).is_some_and(|stat| stat.parent == self.pid);
        pids().filter(is_child).filter_map(Process::with_pid).collect()
    }
}

/// Finds the processes whose program and arguments `wanted` accepts.
pub fn find(wanted: impl Fn(&str, &[String]) -> bool) -> Vec<Process> {
    let matches = |pid: &i32| {
        let Ok(line) = fs::read(format!("/proc/{pid}/cmdline")) else { return false };
        let line = line.strip_suffix(&[0]).unwrap_or(&line);
        let words = line.split(|byte| *byte == 0).map(String::from_utf8_lossy);
        let words: Vec<String> = words.map(std::borrow::Cow::into_owned).collect();
        let Some((program, arguments)) = words.split_first() else { return false };
        let name = Path::new(program).file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| wanted(name, arguments))
    };
    pids().filter(matches).filter_map(Process::with_pid).collect()
}

/// Says whether `value` follows `flag` in a command line.
pub fn has_flag(arguments: &[String], flag: &str, value: &Path) -> bool {
    arguments.windows(2).any(|pair| pair[0] == flag && Path::new(&pair[1]) == value)
}

fn pids() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// What the kernel says of a process, proc_pid_stat(5).
struct Stat {
    state: char,
    parent: i32,
    /// In ticks since the machine was started.
    started: u64,
}

impl Stat {
    fn read(pid: i32) -> Option<Self> {
        let line = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name may hold spaces and brackets.
        let fields: Vec<&str> = line[line.rfind(')')? + 1..].split_whitespace().collect();
        Some(Self {
            state: fields.first()?.chars().next()?,
            parent: fields.get(1)?.parse().ok()?,
            started: fields.get(19)?.parse().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Child, Command};

    #[expect(clippy::disallowed_methods, reason = "tests run programs")]
    fn start() -> (Child, Process) {
        let child = Command::new("sleep").arg("1000").spawn().unwrap();
        let process = Process::with_pid(child.id().cast_signed()).unwrap();
        (child, process)
    }

    #[tokio::test]
    async fn a_pid_that_was_given_away_is_another_process() {
        let (mut child, process) = start();
        let earlier = Process { started: process.started - 1, ..process };
        assert!(process.is_alive() && !earlier.is_alive());
        // It is not waited for, and its signals reach nobody.
        earlier.signal(Signal::SIGKILL);
        assert!(earlier.ended_within(Duration::ZERO).await);
        assert!(child.try_wait().unwrap().is_none(), "it was killed for another one");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[tokio::test]
    async fn a_process_that_nobody_has_buried_has_ended() {
        let (mut child, process) = start();
        assert!(!process.ended_within(Duration::ZERO).await);
        process.signal(Signal::SIGKILL);
        assert!(process.ended_within(Duration::from_secs(10)).await, "a zombie is no process");
        assert!(!process.reaped_within(Duration::ZERO).await);
        child.wait().unwrap();
        assert!(process.reaped_within(Duration::ZERO).await);
    }

    #[test]
    fn processes_are_found_by_program_and_arguments() {
        let (mut child, process) = start();
        let parent = Process::with_pid(std::process::id().cast_signed()).unwrap();
        assert!(parent.children().contains(&process));
        let found = find(|program, arguments| program == "sleep" && arguments == ["1000"]);
        assert!(found.contains(&process), "{found:?}");
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
