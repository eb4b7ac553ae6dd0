//! A daemon that fails comes back by itself: the program starts anew in the process's place, as
//! after a crash, which containers and their traffic survive.

use anyhow::{Context, Error};
use std::convert::Infallible;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

/// Set in a program that came back: it tries again also where it cannot start.
const RETURNED: &str = "SKEP_RETURNED";
/// A fault that comes back at once must not keep the machine busy.
const PAUSE: Duration = Duration::from_secs(1);

/// Says whether this program came back after a failure.
pub(super) fn has_returned() -> bool {
    std::env::var_os(RETURNED).is_some()
}

/// Starts this program again, with the arguments that it was given. Returns only where that fails.
pub(super) async fn come_back(failure: &Error) -> Result<Infallible, Error> {
    tracing::error!(error = format!("{failure:#}"), "the daemon failed and starts again");
    tokio::time::sleep(PAUSE).await;
    #[expect(clippy::disallowed_methods, reason = "the daemon is the one that starts itself")]
    let mut again = Command::new(program());
    let cause = again.args(std::env::args_os().skip(1)).env(RETURNED, "1").exec();
    Err(cause).context("the daemon cannot start again")
}

/// The program as it is on the disk, or as it runs where it was removed meanwhile.
fn program() -> PathBuf {
    let file = std::env::current_exe().unwrap_or_default();
    if file.is_file() { file } else { PathBuf::from("/proc/self/exe") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    #[ignore = "it is what the other test starts"]
    async fn fails_once() {
        if has_returned() {
            println!("process {} is back", std::process::id());
            return;
        }
        let error = come_back(&anyhow::anyhow!("a loop panicked")).await.unwrap_err();
        panic!("{error:#}");
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "tests run programs")]
    fn a_daemon_that_fails_comes_back_as_the_same_process() {
        let name = "daemon::again::tests::fails_once";
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name, "--ignored", "--nocapture"])
            .env_remove(RETURNED)
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let id = child.id();
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{text}");
        assert!(text.contains(&format!("process {id} is back")), "{text}");
    }
}
