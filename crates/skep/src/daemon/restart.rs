//! A daemon that fails comes back by itself: the program starts anew in the process's place, as
//! after a crash, which containers and their traffic survive. One that was asked to end does not.

use anyhow::{Context, Error, Result};
use scope::Scope;
use std::convert::Infallible;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Set in a program that came back: it tries again also where it cannot start.
const RETURNED: &str = "SKEP_RETURNED";
/// A fault that comes back at once must not keep the machine busy.
const PAUSE: Duration = Duration::from_secs(1);

/// Starts a daemon's loops and waits for their end, after which it tidies up. Where they fail, the
/// program starts again.
///
/// # Errors
/// When the first start fails, and when anything fails after the daemon was asked to end.
pub(super) async fn run_until_asked(
    start: impl AsyncFnOnce(&mut Scope) -> Result<()>,
    tidy: impl FnOnce(),
) -> Result<()> {
    if has_returned() {
        take_name();
    }
    let mut signals = Scope::new();
    // Cancelled by a signal, which is remembered so.
    let asked = signals.token();
    signals.spawn("signals", hear(asked.clone())?);
    let mut scope = signals.child();
    let failure = match start(&mut scope).await {
        Ok(()) => {
            let ended = scope.join().await.context("the daemon ends early");
            tidy();
            match ended {
                Ok(()) => return Ok(()),
                Err(failure) => failure,
            }
        }
        Err(failure) if has_returned() => failure,
        Err(failure) => return Err(failure),
    };
    come_back(failure, &asked).await
}

/// Hears from now on; cancels the token when the daemon is asked to end.
fn hear(token: CancellationToken) -> io::Result<impl Future<Output = Result<(), Infallible>>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            () = token.cancelled() => {}
            _ = terminate.recv() => tracing::info!("asked to end by SIGTERM"),
            _ = interrupt.recv() => tracing::info!("asked to end by SIGINT"),
        }
        token.cancel();
        Ok(())
    })
}

/// Says whether this program came back after a failure.
fn has_returned() -> bool {
    std::env::var_os(RETURNED).is_some()
}

/// Starts this program again, with the arguments that it was given. Returns only where that fails,
/// or where it is asked to end meanwhile.
async fn come_back(failure: Error, asked: &CancellationToken) -> Result<()> {
    if !asked.is_cancelled() {
        tracing::error!(error = format!("{failure:#}"), "the daemon failed and starts again");
    }
    tokio::select! {
        biased;
        () = asked.cancelled() => return Err(failure),
        () = tokio::time::sleep(PAUSE) => {}
    }
    #[expect(clippy::disallowed_methods, reason = "the daemon is the one that starts itself")]
    let mut again = Command::new(program());
    let mut words = std::env::args_os();
    let name = words.next().unwrap_or_default();
    let cause = again.arg0(name).args(words).env(RETURNED, "1").exec();
    Err(cause).context("the daemon cannot start again")
}

/// By way of /proc, lists of processes would call it `exe`.
fn take_name() {
    let called = std::env::args_os().next().unwrap_or_default();
    let name = Path::new(&called).file_name().unwrap_or_default();
    if let Err(error) = std::fs::write("/proc/self/comm", name.as_bytes()) {
        tracing::debug!(%error, "the daemon has another name in lists of processes");
    }
}

/// The program as it is on the disk, or as it runs where it was removed meanwhile.
fn program() -> PathBuf {
    let file = std::env::current_exe().unwrap_or_default();
    if file.is_file() { file } else { PathBuf::from("/proc/self/exe") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::signal::{Signal, kill};
    use nix::unistd::Pid;
    use scope::BoxError;
    use std::io::{BufRead, BufReader, Read};
    use std::process::{Child, Stdio};

    #[tokio::test]
    #[ignore = "it is what another test starts"]
    async fn fails_once() {
        if has_returned() {
            println!("process {} is back", std::process::id());
            return;
        }
        let start = async |scope: &mut Scope| {
            scope.spawn("fails", async { Err::<(), BoxError>("broken".into()) });
            Ok(())
        };
        let error = run_until_asked(start, || {}).await.unwrap_err();
        panic!("{error:#}");
    }

    #[tokio::test]
    #[ignore = "it is what another test starts"]
    async fn is_removed_and_fails_once() {
        let was_back = has_returned();
        let start = async |scope: &mut Scope| {
            if was_back {
                let called = std::env::args().next().unwrap();
                let comm = std::fs::read_to_string("/proc/self/comm").unwrap();
                println!("back as {called} and {comm}");
                std::process::exit(0);
            }
            std::fs::remove_file(std::env::current_exe().unwrap()).unwrap();
            scope.spawn("fails", async { Err::<(), BoxError>("broken".into()) });
            Ok(())
        };
        run_until_asked(start, || {}).await.unwrap();
    }

    #[test]
    fn a_program_that_was_removed_comes_back_by_its_own_name() {
        let program = std::env::current_exe().unwrap();
        let folder = tempfile::tempdir_in(program.parent().unwrap()).unwrap();
        let link = folder.path().join("linked");
        std::fs::hard_link(&program, &link).unwrap();
        let output = start_program(&link, "is_removed_and_fails_once").wait_with_output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(said.contains(&format!("back as {} and linked\n", link.display())), "{said}");
    }

    #[tokio::test]
    #[ignore = "it is what another test starts"]
    async fn panics_once() {
        if has_returned() {
            println!("process {} is back", std::process::id());
            return;
        }
        let start = async |scope: &mut Scope| {
            let token = scope.token();
            // Who goes on while it can, ends with the one that cannot.
            scope.spawn("lives", async move {
                token.cancelled().await;
                Ok::<(), BoxError>(())
            });
            scope.spawn("panics", async { panic!("broken") as Result<(), BoxError> });
            Ok(())
        };
        let error = run_until_asked(start, || {}).await.unwrap_err();
        panic!("{error:#}");
    }

    #[tokio::test]
    #[ignore = "it is what another test starts"]
    async fn ends_early_once() {
        if has_returned() {
            println!("process {} is back", std::process::id());
            return;
        }
        let start = async |scope: &mut Scope| {
            scope.spawn("ends", async { Ok::<(), BoxError>(()) });
            Ok(())
        };
        run_until_asked(start, || {}).await.unwrap();
        panic!("it ended as if it were asked to");
    }

    #[tokio::test]
    #[ignore = "it is what another test starts"]
    async fn fails_while_it_ends() {
        assert!(!has_returned(), "it came back");
        let start = async |scope: &mut Scope| {
            let token = scope.token();
            scope.spawn("fails at its end", async move {
                token.cancelled().await;
                Err::<(), BoxError>("broken".into())
            });
            println!("\nstarted");
            Ok(())
        };
        let error = run_until_asked(start, || println!("tidy")).await.unwrap_err();
        println!("ended: {error:#}");
    }

    /// Runs one of the tests above in a process of its own.
    fn start(test: &str) -> Child {
        start_program(&std::env::current_exe().unwrap(), test)
    }

    #[expect(clippy::disallowed_methods, reason = "tests run programs")]
    fn start_program(program: &Path, test: &str) -> Child {
        Command::new(program)
            .args([
                "--exact",
                &format!("daemon::restart::tests::{test}"),
                "--ignored",
                "--nocapture",
            ])
            .env_remove(RETURNED)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
    }

    #[test]
    fn a_daemon_that_fails_panics_or_ends_early_comes_back_as_the_same_process() {
        for test in ["fails_once", "panics_once", "ends_early_once"] {
            let child = start(test);
            let id = child.id();
            let output = child.wait_with_output().unwrap();
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(output.status.success(), "{text}");
            assert!(text.contains(&format!("process {id} is back")), "{text}");
        }
    }

    #[test]
    fn a_daemon_that_fails_while_it_ends_stays_away() {
        let mut child = start("fails_while_it_ends");
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut text = String::new();
        while !text.ends_with("started\n") {
            assert!(output.read_line(&mut text).unwrap() > 0, "{text}");
        }
        kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM).unwrap();
        output.read_to_string(&mut text).unwrap();
        assert!(child.wait().unwrap().success(), "{text}");
        assert!(
            text.contains("tidy\nended: the daemon ends early: loop fails at its end"),
            "{text}"
        );
    }
}
