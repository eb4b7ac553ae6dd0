//! The small init of containers, for real: as the first process of a PID namespace, as it is there.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "programs are started")]

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};

/// The program in a file of its own.
fn program(dir: &tempfile::TempDir) -> String {
    let path = dir.path().join("init");
    fs::write(&path, linux::init().expect("this architecture has one")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path.to_str().unwrap().to_owned()
}

/// Starts it as a container's first process; its output is piped.
fn first_process(program: &str, command: &[&str]) -> Child {
    let mut unshare = Command::new("unshare");
    unshare.args(["--pid", "--fork", "--kill-child", "--mount-proc", program, "--"]).args(command);
    unshare.stdout(Stdio::piped()).spawn().unwrap()
}

#[test]
fn it_ends_as_its_command_does() {
    let dir = tempfile::tempdir().unwrap();
    let program = program(&dir);
    let code = |command: &[&str]| {
        let ended = Command::new(&program).arg("--").args(command).stderr(Stdio::piped()).output();
        let ended = ended.unwrap();
        (ended.status.code().unwrap(), String::from_utf8(ended.stderr).unwrap())
    };
    assert_eq!(code(&["sh", "-c", "exit 9"]).0, 9);
    assert_eq!(code(&["/bin/sh", "-c", "kill -KILL $$"]).0, 137);
    assert_eq!(code(&["nope"]), (127, "docker-init: cannot execute nope\n".to_owned()));
    assert_eq!(
        code(&["/etc/passwd"]),
        (126, "docker-init: cannot execute /etc/passwd\n".to_owned())
    );
    assert_eq!(code(&[]), (127, "docker-init: no command\n".to_owned()));
    assert_eq!(code(&[&"x".repeat(9000)]).0, 127);
}

#[test]
fn signals_reach_the_command_and_orphans_are_reaped() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    // The command makes orphans that end, waits until none is a zombie, and says so.
    let script = "trap 'exit 7' TERM
        for one in 1 2 3; do (sh -c true & exec true); done
        until ! grep -q '^State:.Z' /proc/[0-9]*/status 2>/dev/null; do sleep 0.01; done
        echo \"first $(cat /proc/1/comm)\"
        while :; do sleep 0.01; done";
    let mut child = first_process(&program(&dir), &["sh", "-c", script]);
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "first init\n");
    // The init is the only child of unshare.
    let children = format!("/proc/{0}/task/{0}/children", child.id());
    let init = fs::read_to_string(children).unwrap().trim().parse().unwrap();
    let init = nix::unistd::Pid::from_raw(init);
    nix::sys::signal::kill(init, nix::sys::signal::Signal::SIGTERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(7));
}
