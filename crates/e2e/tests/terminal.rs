//! A person at a terminal: `docker run`, `attach` and `exec` with `-it`, left by the detach keys.

use e2e::{Lab, until};
use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_mins(1);
const DOCKERS: &[u8] = b"\x10\x11";
const CTRL_X: &[u8] = b"\x18";

#[test]
fn a_terminal_is_left_by_its_keys_and_has_its_size() {
    let lab = Lab::up(1, &["busybox"]);
    run_and_attach(&lab);
    exec(&lab);
    sizes(&lab);
}

/// A program of the docker CLI at a terminal of its own.
struct Terminal {
    child: Child,
    keys: ChildStdin,
    shown: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    /// Runs a line for the shell; `docker` is the lab's.
    fn open(lab: &Lab, line: &str) -> Self {
        let mut command = lab.at_terminal(line);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("script(1) is installed");
        let keys = child.stdin.take().expect("a pipe");
        let mut output = child.stdout.take().expect("a pipe");
        let shown = Arc::new(Mutex::new(Vec::new()));
        let screen = Arc::clone(&shown);
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = output.read(&mut buffer) {
                screen.lock().expect("nobody panics").extend_from_slice(&buffer[..count]);
            }
        });
        Self { child, keys, shown }
    }

    fn press(&mut self, keys: &[u8]) {
        self.keys.write_all(keys).expect("the terminal is there");
    }

    fn screen(&self) -> String {
        String::from_utf8_lossy(&self.shown.lock().expect("nobody panics")).into_owned()
    }

    fn shows(&self, text: &str) {
        until(&format!("the terminal shows {text:?}"), PATIENCE, || {
            let screen = self.screen();
            if screen.contains(text) { Ok(()) } else { Err(screen) }
        });
    }

    /// Presses the last keys, after which the CLI ends.
    fn leave(mut self, keys: &[u8]) {
        self.press(keys);
        until("the CLI ends", PATIENCE, || match self.child.try_wait() {
            Ok(Some(_)) => Ok(()),
            other => Err(format!("{other:?}: {}", self.screen())),
        });
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

fn runs(lab: &Lab, name: &str) {
    let format = "{{.State.Running}}";
    assert_eq!(lab.docker(&["inspect", "--format", format, name]).good().trim(), "true");
}

/// The echo of a terminal shows what `cat` is given, and its output once more.
fn run_and_attach(lab: &Lab) {
    let line = "docker run -it --name seat busybox:latest sh -c 'echo ready; exec cat'";
    let first = Terminal::open(lab, line);
    first.shows("ready");
    first.leave(DOCKERS);
    runs(lab, "seat");

    let mut second = Terminal::open(lab, "docker attach seat");
    // What is typed before the CLI has its terminal is lost.
    until("what is typed comes back", PATIENCE, || {
        second.press(b"hi\n");
        let screen = second.screen();
        if screen.contains("hi\r\nhi\r\n") { Ok(()) } else { Err(screen) }
    });
    second.leave(DOCKERS);
    runs(lab, "seat");

    let mut third = Terminal::open(lab, "docker attach --detach-keys=ctrl-x seat");
    until("what is typed comes back", PATIENCE, || {
        third.press(b"ho\n");
        let screen = third.screen();
        if screen.contains("ho\r\nho\r\n") { Ok(()) } else { Err(screen) }
    });
    // Docker's own keys are text then.
    third.press(DOCKERS);
    third.press(b"on\n");
    third.shows("on\r\n");
    third.leave(CTRL_X);
    runs(lab, "seat");
}

fn exec(lab: &Lab) {
    for (keys, option, number) in [(DOCKERS, "", "1001"), (&b"ab"[..], "--detach-keys=a,b", "1002")]
    {
        let line =
            format!("docker exec -it {option} seat sh -c 'echo inside; exec sleep {number}'");
        let terminal = Terminal::open(lab, &line);
        terminal.shows("inside");
        terminal.leave(keys);
        let top = lab.docker(&["top", "seat"]).good();
        assert!(top.contains(&format!("sleep {number}")), "{top}");
    }
    lab.docker(&["rm", "--force", "seat"]).good();
}

fn sizes(lab: &Lab) {
    let wait =
        "until stty size | grep -q '^33 99$'; do sleep 0.1; done; echo sized; exec sleep 1000";
    let run = format!("docker run -it --name sized busybox:latest sh -c \"{wait}\"");
    let terminal = Terminal::open(lab, &format!("stty rows 33 cols 99; {run}"));
    terminal.shows("sized");
    let exec = format!("docker exec -it sized sh -c \"{wait}\"");
    let other = Terminal::open(lab, &format!("stty rows 33 cols 99; {exec}"));
    other.shows("sized");
    other.leave(DOCKERS);
    terminal.leave(DOCKERS);
    lab.docker(&["rm", "--force", "sized"]).good();
}
