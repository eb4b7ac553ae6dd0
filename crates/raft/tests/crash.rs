//! What was acknowledged survives the process being killed at any moment.
//!
//! The test runs itself as a child that writes numbered changes and prints each number once it is
//! acknowledged; the parent kills it, opens the log and looks.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod numbered;

use numbered::{close, holds, open, put, snapshot_every};
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Stdio};
use std::time::Duration;

const DIRECTORY: &str = "SKEP_CRASH_TEST_DIRECTORY";
const FIRST: &str = "SKEP_CRASH_TEST_FIRST";
const ROUNDS: u64 = 12;
const WRITERS: u64 = 8;
/// Numbers that one round may use.
const PER_ROUND: u64 = 1_000_000;

#[test]
#[ignore = "run by the test that kills it"]
fn child() {
    let Ok(directory) = std::env::var(DIRECTORY) else { return };
    let first: u64 = std::env::var(FIRST).unwrap().parse().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (sequencer, _scope) = open(Path::new(&directory)).await;
        snapshot_every(&sequencer, 50).await;
        let mut writers = tokio::task::JoinSet::new();
        for writer in 0..WRITERS {
            let sequencer = sequencer.clone();
            writers.spawn(async move {
                for number in (first + writer..).step_by(usize::try_from(WRITERS).unwrap()) {
                    put(&sequencer, number).await.unwrap();
                    // A write of one short line to a pipe is whole or not there.
                    let mut out = std::io::stdout();
                    out.write_all(format!("\nacknowledged {number}\n").as_bytes()).unwrap();
                    out.flush().unwrap();
                }
            });
        }
        writers.join_all().await;
    });
}

#[expect(clippy::disallowed_methods, reason = "only a process can be killed")]
fn spawn(directory: &Path, round: u64) -> (Child, BufReader<ChildStdout>) {
    let mut child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["child", "--exact", "--ignored", "--nocapture"])
        .env(DIRECTORY, directory)
        .env(FIRST, (round * PER_ROUND).to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let out = BufReader::new(child.stdout.take().unwrap());
    (child, out)
}

fn acknowledged(line: &str) -> Option<u64> {
    line.strip_prefix("acknowledged ")?.parse().ok()
}

#[test]
fn what_was_acknowledged_survives_kills() {
    let directory = tempfile::tempdir().unwrap();
    let mut safe = BTreeSet::new();
    for round in 0..ROUNDS {
        let (mut child, out) = spawn(directory.path(), round);
        let mut lines = out.lines().map_while(Result::ok);
        // Kill it at a moment that differs from round to round, once it writes.
        let first = lines.find_map(|line| acknowledged(&line)).expect("the child writes");
        safe.insert(first);
        let killer = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_micros(round * round * 2_311 + round * 701));
            child.kill().unwrap();
            child.wait().unwrap();
        });
        safe.extend(lines.filter_map(|line| acknowledged(&line)));
        killer.join().unwrap();

        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let (sequencer, scope) = open(directory.path()).await;
            let view = sequencer.view();
            let lost: Vec<_> = safe.iter().filter(|number| !holds(&view, **number)).collect();
            assert!(
                lost.is_empty(),
                "round {round}: {} lost of {}: {lost:?}",
                lost.len(),
                safe.len()
            );
            close(sequencer, scope).await;
        });
    }
    assert!(safe.len() > 300, "only {} changes were tried", safe.len());
}
