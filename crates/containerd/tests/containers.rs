//! Containers on a real containerd: run, tell, signal, exec, remove.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "all of it is test code")]

mod trial;

use engine::{Runtime, State};
use std::io::Write;
use std::time::Instant;
use trial::{IMAGE, ended, is_running, process, spec, until};
use types::FaultKind;

#[tokio::test(flavor = "multi_thread")]
async fn a_container_runs_tells_its_end_and_leaves_nothing() {
    let Some((bench, runtime)) = trial::loaded().await else { return };
    let mut happenings = trial::happenings(&runtime).await;

    let id = "a".repeat(64);
    let mut pipes = bench.pipes("a");
    runtime.prepare(id.clone(), IMAGE.to_owned()).await.unwrap();
    runtime.prepare(id.clone(), IMAGE.to_owned()).await.unwrap();
    assert_eq!(runtime.state(id.clone()).await.unwrap(), Some(State::Prepared));
    let command = "echo out; echo err >&2; touch /kept; exit 3";
    runtime.start(id.clone(), spec(&id, command), pipes.stdio.clone()).await.unwrap();
    assert_eq!(ended(&mut happenings, &id).await, 3);
    let State::Ended(exit) = runtime.state(id.clone()).await.unwrap().unwrap() else {
        panic!("it has ended")
    };
    assert_eq!(exit.code, 3);
    assert_eq!(runtime.reap(id.clone()).await.unwrap().unwrap().code, 3);
    assert_eq!(runtime.reap(id.clone()).await.unwrap(), None);
    assert_eq!(pipes.read(), ("out\n".to_owned(), "err\n".to_owned()));

    // The file system stays between two starts.
    let again = runtime.start(id.clone(), spec(&id, "ls /kept"), pipes.stdio.clone());
    again.await.unwrap();
    assert_eq!(ended(&mut happenings, &id).await, 0);

    runtime.delete(id.clone()).await.unwrap();
    runtime.delete(id.clone()).await.unwrap();
    assert_eq!(runtime.state(id).await.unwrap(), None);
    assert!(runtime.list().await.unwrap().is_empty());
    bench.check_nothing_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn signals_reach_a_container_and_an_ended_one_does_not_mind() {
    let Some((bench, runtime)) = trial::loaded().await else { return };
    let mut happenings = trial::happenings(&runtime).await;

    let id = "killed".to_owned();
    let command = "trap 'echo got it; exit 7' TERM; echo up; while true; do sleep 0.1; done";
    let (pid, mut pipes) = bench.run(&runtime, &id, command).await;
    assert_eq!(runtime.state(id.clone()).await.unwrap(), Some(State::Running { pid }));
    // Starting what runs is fine.
    let second = runtime.start(id.clone(), spec(&id, command), pipes.stdio.clone()).await;
    assert_eq!(second.unwrap(), pid);
    assert!(runtime.pids(id.clone()).await.unwrap().contains(&pid));
    pipes.read_until("up").await;
    runtime.signal(id.clone(), 15, false).await.unwrap();
    assert_eq!(ended(&mut happenings, &id).await, 7);
    runtime.signal(id.clone(), 15, false).await.unwrap();
    runtime.reap(id.clone()).await.unwrap();
    runtime.signal(id.clone(), 9, true).await.unwrap();
    assert_eq!(pipes.read().0, "got it\n");

    runtime.start(id.clone(), spec(&id, "sleep 1000"), pipes.stdio.clone()).await.unwrap();
    runtime.signal(id.clone(), 9, false).await.unwrap();
    assert_eq!(ended(&mut happenings, &id).await, 137);
    let unknown = runtime.signal("nobody".to_owned(), 9, false).await.unwrap_err();
    assert_eq!(unknown.kind, FaultKind::NotFound);
    assert_eq!(unknown.message, "No such container: nobody");
    runtime.delete(id).await.unwrap();
    bench.check_nothing_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_container_is_deleted_whole_and_its_shim_with_it() {
    let Some((bench, runtime)) = trial::loaded().await else { return };
    let mut running = Vec::new();
    for number in 0..3 {
        running.push(bench.run(&runtime, &format!("c{number}"), "sleep 1000").await);
    }
    assert_eq!(runtime.list().await.unwrap().len(), 3);
    assert_eq!(bench.shims(), 3);
    for number in 0..3 {
        runtime.delete(format!("c{number}")).await.unwrap();
    }
    bench.check_nothing_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_cannot_start_says_why_and_leaves_no_process() {
    let Some((bench, runtime)) = trial::loaded().await else { return };
    let pipes = bench.pipes("broken");
    let id = "broken".to_owned();
    let unknown = runtime.prepare(id.clone(), "docker.io/library/none:latest".to_owned()).await;
    assert_eq!(unknown.unwrap_err().message, "No such image: none:latest");
    let early = runtime.start(id.clone(), spec(&id, "true"), pipes.stdio.clone()).await;
    assert_eq!(early.unwrap_err().kind, FaultKind::NotFound);

    runtime.prepare(id.clone(), IMAGE.to_owned()).await.unwrap();
    let mut wrong = spec(&id, "");
    wrong["process"]["args"] = serde_json::json!(["/no/such/program"]);
    let fault = runtime.start(id.clone(), wrong, pipes.stdio.clone()).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::Invalid, "{fault}");
    assert!(fault.message.contains("no such file or directory"), "{fault}");
    assert_eq!(runtime.state(id.clone()).await.unwrap(), Some(State::Prepared));
    bench.check_nothing_left();
    runtime.delete(id).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_further_process_has_its_own_output_code_and_end() {
    let Some((bench, runtime)) = trial::loaded().await else { return };
    let id = "host".to_owned();
    let mut own = bench.pipes("exec");
    let absent = runtime.exec(id.clone(), "e".to_owned(), process("true"), own.stdio.clone()).await;
    assert_eq!(absent.unwrap_err().kind, FaultKind::NotFound);
    let (_pid, _pipes) = bench.run(&runtime, &id, "sleep 1000").await;

    let command = process("echo hello; echo problem >&2; exit 4");
    runtime.exec(id.clone(), "e1".to_owned(), command, own.stdio.clone()).await.unwrap();
    assert_eq!(runtime.exec_wait(id.clone(), "e1".to_owned()).await.unwrap().code, 4);
    assert_eq!(own.read(), ("hello\n".to_owned(), "problem\n".to_owned()));
    let again = runtime.exec_wait(id.clone(), "e1".to_owned()).await.unwrap_err();
    assert_eq!(again.kind, FaultKind::NotFound);

    let sleeper = process("sleep 1000");
    runtime.exec(id.clone(), "e2".to_owned(), sleeper, own.stdio.clone()).await.unwrap();
    runtime.exec_signal(id.clone(), "e2".to_owned(), 9).await.unwrap();
    assert_eq!(runtime.exec_wait(id.clone(), "e2".to_owned()).await.unwrap().code, 137);

    let mut wrong = process("");
    wrong["args"] = serde_json::json!(["/no/such/program"]);
    let fault = runtime.exec(id.clone(), "e3".to_owned(), wrong, own.stdio.clone()).await;
    assert_eq!(fault.unwrap_err().kind, FaultKind::Invalid);

    let usage = runtime.usage(id.clone()).await.unwrap();
    assert!(0 < usage.memory_bytes && 0 < usage.pids, "{usage:?}");
    // A wait that is going on when the container goes ends, too.
    let sleeper = process("sleep 1000");
    runtime.exec(id.clone(), "e4".to_owned(), sleeper, own.stdio.clone()).await.unwrap();
    let (waited, deleted) =
        tokio::join!(runtime.exec_wait(id.clone(), "e4".to_owned()), runtime.delete(id.clone()));
    deleted.unwrap();
    assert!(waited.is_err() || waited.unwrap().code == 137);
    bench.check_nothing_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn standard_input_reaches_a_process_and_its_end_does_too() {
    let Some((bench, runtime)) = trial::loaded().await else { return };
    let id = "host".to_owned();
    let (_pid, _pipes) = bench.run(&runtime, &id, "sleep 1000").await;

    let mut plain = bench.pipes("plain");
    let mut input = plain.with_stdin();
    let cat = process("cat; echo end");
    runtime.exec(id.clone(), "cat".to_owned(), cat, plain.stdio.clone()).await.unwrap();
    input.write_all(b"one\ntwo\n").unwrap();
    let said = plain.read_until("two").await;
    drop(input);
    runtime.close_stdin(id.clone(), Some("cat".to_owned())).await.unwrap();
    assert_eq!(runtime.exec_wait(id.clone(), "cat".to_owned()).await.unwrap().code, 0);
    assert_eq!(said + &plain.read().0, "one\ntwo\nend\n");

    let mut screen = bench.pipes("screen");
    let mut input = screen.with_stdin();
    screen.stdio.terminal = true;
    screen.stdio.stderr = None;
    let mut shell = process("read line; stty size; echo got $line");
    shell["terminal"] = serde_json::json!(true);
    runtime.exec(id.clone(), "tty".to_owned(), shell, screen.stdio.clone()).await.unwrap();
    let size = engine::Size { width: 101, height: 42 };
    runtime.resize(id.clone(), Some("tty".to_owned()), size).await.unwrap();
    input.write_all(b"hello\n").unwrap();
    assert_eq!(runtime.exec_wait(id.clone(), "tty".to_owned()).await.unwrap().code, 0);
    // The terminal shows what was typed, and ends lines as terminals do.
    assert_eq!(screen.read().0, "hello\r\n42 101\r\ngot hello\r\n");
    runtime.delete(id).await.unwrap();
    bench.check_nothing_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_system_can_be_looked_into_before_the_start() {
    let Some((bench, runtime)) = trial::loaded().await else { return };
    let id = "looked".to_owned();
    runtime.prepare(id.clone(), IMAGE.to_owned()).await.unwrap();
    let at = bench.directory.path().join("at");
    std::fs::create_dir(&at).unwrap();
    runtime.mount(id.clone(), at.clone()).await.unwrap();
    assert!(at.join("bin/busybox").exists());
    runtime.unmount(at.clone()).await.unwrap();
    runtime.unmount(at.clone()).await.unwrap();
    assert!(!at.join("bin").exists());
    runtime.delete(id).await.unwrap();
    bench.check_nothing_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn making_and_starting_takes_a_moment_only() {
    let Some((bench, runtime)) = trial::loaded().await else { return };
    let mut times = Vec::new();
    for number in 0..5 {
        let id = format!("quick{number}");
        #[expect(clippy::disallowed_methods, reason = "the test measures time")]
        let begin = Instant::now();
        let (_pid, _pipes) = bench.run(&runtime, &id, "sleep 1000").await;
        times.push(begin.elapsed());
        assert!(is_running(&runtime, &id).await);
        runtime.delete(id).await.unwrap();
    }
    times.sort();
    println!("prepare and start: {times:?}");
    // About 90 ms here; the bound only catches a pause that somebody put in.
    assert!(times[0].as_millis() < 1000, "{times:?}");
    until("all gone", || async { bench.shims() == 0 }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_processes_at_once_are_as_quick_as_one_after_the_other() {
    let Some((bench, runtime)) = trial::loaded().await else { return };
    let id = "host".to_owned();
    let (_pid, _pipes) = bench.run(&runtime, &id, "sleep 1000").await;
    let one = |number: usize| {
        let (runtime, id, exec) = (runtime.clone(), id.clone(), format!("e{number}"));
        let own = bench.pipes(&exec);
        async move {
            let stdio = own.stdio.clone();
            runtime.exec(id.clone(), exec.clone(), process("true"), stdio).await.unwrap();
            assert_eq!(runtime.exec_wait(id, exec).await.unwrap().code, 0);
            drop(own);
        }
    };
    #[expect(clippy::disallowed_methods, reason = "the test measures time")]
    let begin = Instant::now();
    for number in 0..50 {
        one(number).await;
    }
    let in_turn = begin.elapsed();
    for round in 1..=3 {
        #[expect(clippy::disallowed_methods, reason = "the test measures time")]
        let begin = Instant::now();
        futures_util::future::join_all((0..50).map(|number| one(round * 50 + number))).await;
        let at_once = begin.elapsed();
        println!("fifty in turn: {in_turn:?}, at once: {at_once:?}");
        // A stalled shim needs half a minute.
        assert!(at_once < in_turn * 2, "{at_once:?} at once, {in_turn:?} in turn");
    }
    runtime.delete(id).await.unwrap();
    bench.check_nothing_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shim_that_does_not_answer_has_not_said_that_its_container_ended() {
    let Some((bench, runtime)) = trial::loaded().await else { return };
    let id = "mute".to_owned();
    let (pid, pipes) = bench.run(&runtime, &id, "sleep 1000").await;
    let shim = stop_shim_of(pid).await;
    let state = runtime.state(id.clone()).await;
    let listed = runtime.list().await;
    let again = runtime.start(id.clone(), spec(&id, "sleep 1"), pipes.stdio.clone()).await;
    nix::sys::signal::kill(shim, nix::sys::signal::Signal::SIGCONT).unwrap();
    assert_eq!(state.unwrap(), Some(State::Unknown));
    assert_eq!(listed.unwrap()[&id], State::Unknown);
    assert_eq!(again.unwrap_err().kind, FaultKind::Unavailable, "nothing is made in its place");
    assert_eq!(runtime.state(id.clone()).await.unwrap(), Some(State::Running { pid }));
    runtime.delete(id).await.unwrap();
    bench.check_nothing_left();
}

/// Stops the shim of a container's first process, until SIGCONT.
async fn stop_shim_of(pid: u32) -> nix::unistd::Pid {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let shim = status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap();
    let shim = nix::unistd::Pid::from_raw(shim.trim().parse().unwrap());
    nix::sys::signal::kill(shim, nix::sys::signal::Signal::SIGSTOP).unwrap();
    // A signal is delivered to a thread at its next turn.
    while !trial::is_stopped(shim.as_raw()) {
        tokio::task::yield_now().await;
    }
    shim
}

#[tokio::test(flavor = "multi_thread")]
async fn what_could_not_be_ended_is_still_known() {
    let Some((bench, runtime)) = trial::loaded().await else { return };
    let id = "stuck".to_owned();
    let (pid, _pipes) = bench.run(&runtime, &id, "sleep 1000").await;
    let shim = stop_shim_of(pid).await;
    let removed = runtime.delete(id.clone()).await;
    nix::sys::signal::kill(shim, nix::sys::signal::Signal::SIGCONT).unwrap();
    assert_eq!(removed.unwrap_err().kind, FaultKind::Unavailable);
    let state = runtime.state(id.clone()).await.unwrap();
    assert!(state.is_some(), "a container that may run is forgotten");
    assert!(runtime.list().await.unwrap().contains_key(&id));
    runtime.delete(id).await.unwrap();
    bench.check_nothing_left();
}
