//! What `skep` refuses on its command line, and whether it says what to do.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Nobody: a user with no rights.
const NOBODY: u32 = 65534;

/// A copy of the program that everybody may run.
fn program(folder: &Path) -> PathBuf {
    let copy = folder.join("skep");
    std::fs::copy(env!("CARGO_BIN_EXE_skep"), &copy).expect("the program is there");
    for path in [folder, &copy] {
        let everybody = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(path, everybody).expect("the folder is ours");
    }
    copy
}

/// Runs `skep` and returns what it complains of.
#[expect(clippy::disallowed_methods, reason = "tests run programs")]
fn complaint(program: &Path, user: u32, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .env_remove("DOCKER_HOST")
        .uid(user)
        .output()
        .expect("the program starts");
    assert!(!output.status.success(), "{arguments:?} should have failed");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn without_root_daemon_and_lab_say_that_they_need_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let program = program(folder.path());
    for arguments in [&["daemon"][..], &["lab", "up"], &["lab", "down"]] {
        let text = complaint(&program, NOBODY, arguments);
        assert!(text.contains("needs root") && text.contains("sudo"), "{arguments:?}: {text}");
    }
}

#[test]
fn without_a_daemon_the_verbs_say_where_they_looked() {
    let program = Path::new(env!("CARGO_BIN_EXE_skep"));
    let text = complaint(program, 0, &["node", "ls", "-H", "unix:///nowhere/docker.sock"]);
    assert!(text.contains("unix:///nowhere/docker.sock") && text.contains("running"), "{text}");
    let text = complaint(program, 0, &["node", "ls", "-H", "http://somewhere"]);
    assert!(text.contains("use unix://PATH"), "{text}");
}

#[test]
fn a_mistyped_verb_is_told_from_the_right_one() {
    let program = Path::new(env!("CARGO_BIN_EXE_skep"));
    let text = complaint(program, 0, &["servce", "ls"]);
    assert!(text.contains("service"), "{text}");
}

/// A daemon that knows one node, a worker called `one`, and nothing else.
fn daemon(socket: &Path) {
    const NODE: &str = r#"{"ID": "n1", "Spec": {"Role": "worker", "Labels": {"a": "b"}}}"#;
    let listener = UnixListener::bind(socket).expect("a socket");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = BufReader::new(stream.expect("a connection"));
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                assert!(stream.read_line(&mut head).expect("a request") > 0);
            }
            let (status, body) = match head.split(' ').nth(1).expect("a path") {
                "/nodes/one" => ("200 OK", NODE),
                path if path.starts_with("/tasks") => ("200 OK", "[]"),
                "/services" | "/nodes" => ("200 OK", "[]"),
                _ => ("404 Not Found", r#"{"message": "no such thing"}"#),
            };
            let length = body.len();
            let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n{body}");
            stream.get_mut().write_all(answer.as_bytes()).expect("the client listens");
        }
    });
}

#[test]
fn what_changes_or_finds_nothing_is_said() {
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("docker.sock");
    daemon(&socket);
    let host = format!("unix://{}", socket.display());
    let program = Path::new(env!("CARGO_BIN_EXE_skep"));
    for (verb, reason) in [
        (&["node", "ps", "nosuch"][..], "no such thing"),
        (&["node", "ps", "one", "nosuch"], "no such thing"),
        (&["node", "update", "--label-rm", "c", "one"], "key c doesn't exist in node's labels"),
        (&["pull", "nginx:"], "invalid reference format"),
        (&["pull", "nginx@"], "invalid reference format"),
    ] {
        let text = complaint(program, 0, &[verb, &["-H", &host]].concat());
        assert!(text.contains(reason), "{verb:?}: {text}");
    }
}
