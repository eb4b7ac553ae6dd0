//! A daemon that cannot start after a failure tries again and again, until it is told to end.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

#[test]
#[expect(clippy::disallowed_methods, reason = "tests run programs")]
fn it_tries_again_until_it_is_told_to_end() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).into_os_string();
    let mut daemon = Command::new(Path::new(env!("CARGO_BIN_EXE_skep")))
        .args(["daemon", "--host", "nowhere://", "--data"])
        .args([path("data"), "--run".into(), path("run")])
        // As a program has it that came back.
        .env("SKEP_RETURNED", "1")
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut lines = BufReader::new(daemon.stderr.take().expect("a pipe")).lines();
    let mut next = |word: &str| {
        let line = lines.by_ref().map_while(Result::ok).find(|line| line.contains(word));
        line.unwrap_or_else(|| panic!("it ended before it said '{word}'"))
    };
    let failure = next("the daemon failed and starts again");
    assert!(failure.contains("nowhere"), "{failure}");
    // The same process, once more.
    next("the daemon failed and starts again");
    kill(Pid::from_raw(daemon.id().cast_signed()), Signal::SIGTERM).expect("it is there");
    next("asked to end by SIGTERM");
    let rest: Vec<_> = lines.map_while(Result::ok).collect();
    assert!(!rest.iter().any(|line| line.contains("starts again")), "{rest:#?}");
    assert_eq!(daemon.wait().expect("it ends").code(), Some(1), "{rest:#?}");
}
