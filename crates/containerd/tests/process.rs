//! The containerd of our own: it outlives its owner, is found again, and comes back when killed.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "all of it is test code")]

mod trial;

use containerd::{Directories, OwnContainerd, Patience};
use engine::{Happening, Runtime};
use futures_util::StreamExt;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use trial::{Bench, ended, is_running, load, until};

const OWNER: &str = "SKEP_TEST_OWNER_DIRECTORY";

/// Not a test by itself: the process that owns a containerd and is killed.
#[tokio::test]
async fn owner() {
    let Ok(directory) = std::env::var(OWNER) else { return };
    let directory = PathBuf::from(directory);
    let directories =
        Directories { root: directory.join("root"), state: directory.join("state"), program: None };
    let owned = OwnContainerd::start(directories, Patience::USUAL).await.unwrap();
    std::fs::write(directory.join("pid"), owned.pid().to_string()).unwrap();
    std::future::pending::<()>().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_outlives_its_owner_and_is_taken_over_with_its_containers() {
    let Some(bench) = Bench::new() else { return };
    let mut owner = tokio::process::Command::new(std::env::current_exe().unwrap())
        .args(["owner", "--exact", "--nocapture"])
        .env(OWNER, bench.directory.path())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let told = bench.directory.path().join("pid");
    until("the owner's containerd", || async { told.exists() }).await;
    let runtime = bench.connect("one").await;
    load(&runtime).await;
    let id = "lives".to_owned();
    let (_pid, _pipes) = bench.run(&runtime, &id, "sleep 1000").await;

    owner.kill().await.unwrap();
    let adopted = bench.start().await;
    assert!(adopted.was_adopted());
    let pid: i32 = std::fs::read_to_string(&told).unwrap().parse().unwrap();
    assert_eq!(adopted.pid(), pid);
    assert!(is_running(&runtime, &id).await);

    adopted.stop().await.unwrap();
    bench.check_nothing_left();
    assert!(trial::has_ended(pid), "containerd still runs");
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::disallowed_methods, reason = "a loop and a wait run beside the test")]
async fn a_killed_containerd_comes_back_and_its_containers_never_notice() {
    let Some(bench) = Bench::new() else { return };
    let owned = bench.start().await;
    assert!(!owned.was_adopted());
    let pid = owned.pid();
    let token = CancellationToken::new();
    let keeping = tokio::spawn(owned.keep(token.clone()));
    let runtime = bench.connect("one").await;
    load(&runtime).await;
    let mut happenings = trial::happenings(&runtime).await;
    let id = "stays".to_owned();
    let (_pid, pipes) = bench.run(&runtime, &id, "sleep 1000").await;
    let process = trial::process("sleep 1000");
    runtime.exec(id.clone(), "e".to_owned(), process, pipes.stdio.clone()).await.unwrap();
    let own = runtime.clone();
    let waiting =
        tokio::spawn(async move { own.exec_wait("stays".to_owned(), "e".to_owned()).await });

    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    // The stream notices, and calls wait for the new containerd.
    assert_eq!(happenings.next().await, Some(Happening::Lost));
    assert_eq!(happenings.next().await, Some(Happening::Resubscribed));
    assert!(is_running(&runtime, &id).await);
    runtime.exec_signal(id.clone(), "e".to_owned(), 9).await.unwrap();
    assert_eq!(waiting.await.unwrap().unwrap().code, 137);
    runtime.signal(id.clone(), 9, false).await.unwrap();
    assert_eq!(ended(&mut happenings, &id).await, 137);
    runtime.delete(id).await.unwrap();
    token.cancel();
    keeping.await.unwrap().unwrap();
    bench.check_nothing_left();
}

/// Short, and long enough for a machine that is busy.
const PATIENCE: Patience =
    Patience { every: Duration::from_millis(100), answer: Duration::from_secs(3), missed: 2 };

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::disallowed_methods, reason = "a loop runs beside the test")]
async fn a_containerd_that_hangs_is_started_again_and_its_containers_never_notice() {
    let Some(mut bench) = Bench::new() else { return };
    bench.patience = PATIENCE;
    let owned = bench.start().await;
    let pid = owned.pid();
    let token = CancellationToken::new();
    let keeping = tokio::spawn(owned.keep(token.clone()));
    let runtime = bench.connect("one").await;
    load(&runtime).await;
    let mut happenings = runtime.happenings();
    assert_eq!(happenings.next().await, Some(Happening::Resubscribed));
    let id = "stays".to_owned();
    let (_pid, _pipes) = bench.run(&runtime, &id, "sleep 1000").await;

    kill(Pid::from_raw(pid), Signal::SIGSTOP).unwrap();
    // From then on nobody says what is not known.
    assert_eq!(happenings.next().await, Some(Happening::Lost));
    assert_eq!(happenings.next().await, Some(Happening::Resubscribed));
    assert!(trial::has_ended(pid), "the one that hangs is still there");
    assert!(is_running(&runtime, &id).await);
    runtime.signal(id.clone(), 9, false).await.unwrap();
    assert_eq!(ended(&mut happenings, &id).await, 137);
    runtime.delete(id).await.unwrap();
    token.cancel();
    keeping.await.unwrap().unwrap();
    bench.check_nothing_left();
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::disallowed_methods, reason = "a loop runs beside the test")]
async fn the_log_of_a_containerd_that_runs_does_not_grow_for_ever() {
    let Some(bench) = Bench::new() else { return };
    let owned = bench.start().await;
    let token = CancellationToken::new();
    let keeping = tokio::spawn(owned.keep(token.clone()));
    let path = bench.directories.log();
    let mut log = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
    log.write_all(&vec![b'a'; 11 << 20]).unwrap();
    until("the log begins anew", || async { path.metadata().unwrap().len() < 1 << 20 }).await;
    log.write_all(b"and goes on\n").unwrap();
    assert!(std::fs::read_to_string(&path).unwrap().contains("and goes on"));
    assert!(11 << 20 <= path.with_extension("log.1").metadata().unwrap().len());
    token.cancel();
    keeping.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_containerd_that_hangs_is_not_taken_over() {
    let Some(mut bench) = Bench::new() else { return };
    bench.patience = PATIENCE;
    let pid = bench.start().await.pid();
    kill(Pid::from_raw(pid), Signal::SIGSTOP).unwrap();
    let owned = tokio::time::timeout(Duration::from_mins(1), bench.start()).await.unwrap();
    assert!(!owned.was_adopted());
    assert_ne!(owned.pid(), pid);
    assert!(trial::has_ended(pid), "the one that hangs is still there");
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_also_ends_what_a_dead_containerd_left() {
    let Some(bench) = Bench::new() else { return };
    let owned = bench.start().await;
    let runtime = bench.connect("one").await;
    load(&runtime).await;
    let (pid, _pipes) = bench.run(&runtime, "orphan", "sleep 1000").await;
    kill(Pid::from_raw(owned.pid()), Signal::SIGKILL).unwrap();
    assert_eq!(bench.shims(), 1);
    containerd::stop(&bench.directories).await.unwrap();
    bench.check_nothing_left();
    assert!(trial::has_ended(pid.cast_signed()), "the container still runs");
    let cgroup = format!("/sys/fs/cgroup/memory/skt-{}/orphan", std::process::id());
    assert!(!std::path::Path::new(&cgroup).exists(), "its cgroup is left");
}

#[tokio::test]
async fn a_containerd_that_cannot_start_says_why() {
    let Some(bench) = Bench::new() else { return };
    let long = bench.directory.path().join("x".repeat(100));
    let directories = Directories { state: long, ..bench.directories.clone() };
    let error = OwnContainerd::start(directories, Patience::USUAL).await.unwrap_err().to_string();
    assert!(error.contains("the path of its socket is too long"), "{error}");
    let program = Some(PathBuf::from("/no/such/containerd"));
    let directories = Directories { program, ..bench.directories.clone() };
    let error = OwnContainerd::start(directories, Patience::USUAL).await.unwrap_err().to_string();
    assert!(error.starts_with("cannot start containerd: "), "{error}");
}
