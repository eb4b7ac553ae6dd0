//! What `skep` refuses on its command line, and whether it says what to do.

use std::os::unix::fs::PermissionsExt;
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
