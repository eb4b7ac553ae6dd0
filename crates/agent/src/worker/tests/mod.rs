mod any_order;
mod files;
mod restart;
mod understood;

use super::*;
use crate::story;
use expect_test::{Expect, expect};
use types::{ContainerStatus, DesiredState, TaskState, Timestamp};

const SECOND: i64 = 1_000_000_000;

fn at(seconds: u64) -> Now {
    Now { uptime: Duration::from_secs(seconds), time: Timestamp(0) }
}

fn task(id: &str, desired: DesiredState) -> Task {
    let mut task = Task { id: id.into(), service_name: "web".into(), ..Task::default() };
    task.spec.container.image = "image".into();
    task.status.state = TaskState::Assigned;
    task.desired = desired;
    task
}

fn assigned(task: Task) -> Assigned {
    [(task.id.clone(), task)].into_iter().collect()
}

fn render(effect: &Effect) -> String {
    match effect {
        Effect::Begin { operation, .. } => match operation {
            Operation::Pull(_) => "pull".into(),
            Operation::Create { .. } => "create".into(),
            Operation::Start { container, .. } => format!("start {container}"),
            Operation::Refresh { container, signal, .. } => {
                format!("refresh {container} {signal}")
            }
            Operation::Drain { container, limit } => {
                format!("drain {container} within {}s", limit.as_secs())
            }
            Operation::Stop { container, grace } => {
                format!("stop {container} within {}s", grace.as_secs())
            }
            Operation::Remove { container } => format!("remove {container}"),
        },
        Effect::Abort { .. } => "abort".into(),
        Effect::Withdraw { .. } => "withdraw".into(),
        Effect::Report { status, .. } => {
            let TaskStatus { state, message, error, .. } = status;
            let error = if error.is_empty() { String::new() } else { format!(" ({error})") };
            let unhealthy = if status.unhealthy { " unhealthy" } else { "" };
            format!("report {} {message}{unhealthy}{error}", state.as_str())
        }
    }
}

/// One event a line, about the task `t`; the trace says what it leads to.
struct Story {
    worker: Worker,
    now: Now,
}

impl Story {
    fn new() -> Self {
        Self { worker: Worker::default(), now: at(0) }
    }

    fn event(&mut self, line: &str) -> Event {
        let words: Vec<&str> = line.split_whitespace().collect();
        let done = |outcome| Event::Done { task: "t".into(), outcome };
        let whole = |desired| Event::Whole {
            tasks: assigned(task("t", desired)),
            withdrawn: BTreeSet::new(),
        };
        match words[0] {
            "ready" => whole(DesiredState::Ready),
            "run" if words.get(1) == Some(&"beside") => {
                let trial = Duration::from_secs(1);
                let task = Task { trial, ..task("t", DesiredState::Running) };
                Event::Whole { tasks: assigned(task), withdrawn: BTreeSet::new() }
            }
            "run" => whole(DesiredState::Running),
            "shutdown" => whole(DesiredState::Shutdown),
            "remove" => whole(DesiredState::Remove),
            "gone" => Event::Whole { tasks: Assigned::default(), withdrawn: BTreeSet::new() },
            "withdrawn" => Event::Changed {
                tasks: Assigned::default(),
                removed: BTreeSet::new(),
                withdrawn: Some(["t".into()].into()),
            },
            "pulled" => done(Outcome::Pulled),
            "created" => done(Outcome::Created { container: "c".into() }),
            "started" => {
                let has_health_check = words.get(1) == Some(&"with-health");
                done(Outcome::Started { pid: 7, has_health_check })
            }
            "drained" => done(Outcome::Drained),
            "stopped" => done(Outcome::Stopped(Exit { code: 137, error: String::new() })),
            "removed" => done(Outcome::Removed),
            "aborted" => done(Outcome::Aborted),
            "fails" => done(Outcome::Failed(words[1..].join(" "))),
            "begun" => Event::Begun { task: "t".into() },
            "exits" => {
                let exit = Exit { code: words[1].parse().unwrap(), error: String::new() };
                Event::Exited { task: "t".into(), exit }
            }
            "healthy" => Event::Health { task: "t".into(), healthy: true },
            "unhealthy" => Event::Health { task: "t".into(), healthy: false },
            "leave" => Event::Leave { told: words.get(1) == Some(&"told") },
            "wait" => {
                self.now.uptime += Duration::from_secs(words[1].parse().unwrap());
                Event::Tick
            }
            "clock" => {
                self.now.time = Timestamp(words[1].parse::<i64>().unwrap() * SECOND);
                Event::Tick
            }
            other => panic!("unknown event {other}"),
        }
    }

    fn tell(&mut self, lines: &str) -> String {
        story::trace(lines, |line| {
            let event = self.event(line);
            self.worker.handle(event, self.now).iter().map(render).collect()
        })
    }
}

fn check(lines: &str, expected: &Expect) {
    expected.assert_eq(&Story::new().tell(lines));
}

#[test]
fn a_task_is_prepared_started_and_runs() {
    check(
        "run\npulled\ncreated\nstarted",
        &expect![[r"
            run: report accepted accepted, report preparing preparing, pull
            pulled: create
            created: report ready prepared, report starting starting, start c
            started: report running started
        "]],
    );
}

#[test]
fn a_task_on_trial_runs_once_its_process_has_run_for_long_enough() {
    check(
        "run beside\npulled\ncreated\nstarted\nwait 0\nwait 1\nwait 1",
        &expect![[r"
            run beside: report accepted accepted, report preparing preparing, pull
            pulled: create
            created: report ready prepared, report starting starting, start c
            started: 
            wait 0: 
            wait 1: report running started
            wait 1: 
        "]],
    );
    check(
        "run beside\npulled\ncreated\nstarted\nexits 3\nwait 1",
        &expect![[r"
            run beside: report accepted accepted, report preparing preparing, pull
            pulled: create
            created: report ready prepared, report starting starting, start c
            started: 
            exits 3: withdraw, report failed starting (task: non-zero exit (3))
            wait 1: 
        "]],
    );
    check(
        "run beside\npulled\ncreated\nstarted with-health\nhealthy",
        &expect![[r"
            run beside: report accepted accepted, report preparing preparing, pull
            pulled: create
            created: report ready prepared, report starting starting, start c
            started with-health: report starting starting
            healthy: report running started
        "]],
    );
    let mut story = Story::new();
    story.tell("run beside\npulled\ncreated\nstarted");
    assert_eq!(story.worker.deadline(), Some(Duration::from_secs(1)));
}

#[test]
fn a_task_with_a_restart_delay_is_prepared_and_started_later() {
    check(
        "ready\npulled\ncreated\nrun\nstarted",
        &expect![[r"
            ready: report accepted accepted, report preparing preparing, pull
            pulled: create
            created: report ready prepared
            run: report ready prepared, report starting starting, start c
            started: report running started
        "]],
    );
}

#[test]
fn a_task_with_a_health_check_runs_once_it_is_healthy() {
    check(
        "run\npulled\ncreated\nstarted with-health\nhealthy",
        &expect![[r"
            run: report accepted accepted, report preparing preparing, pull
            pulled: create
            created: report ready prepared, report starting starting, start c
            started with-health: report starting starting
            healthy: report running started
        "]],
    );
}

#[test]
fn an_unhealthy_task_is_withdrawn_and_stopped_in_order_and_has_failed() {
    check(
        "run\npulled\ncreated\nstarted with-health\nhealthy\nunhealthy\nhealthy\nwithdrawn\ndrained\nstopped",
        &expect![[r"
            run: report accepted accepted, report preparing preparing, pull
            pulled: create
            created: report ready prepared, report starting starting, start c
            started with-health: report starting starting
            healthy: report running started
            unhealthy: report running started unhealthy, withdraw
            healthy: 
            withdrawn: drain c within 10s
            drained: stop c within 10s
            stopped: withdraw, report failed started unhealthy (task: non-zero exit (137): dockerexec: unhealthy container)
        "]],
    );
}

#[test]
fn a_task_that_never_became_healthy_gets_its_stop_signal_and_its_grace() {
    let start = "run\npulled\ncreated\nstarted with-health\nunhealthy";
    let trace = Story::new().tell(start);
    let last = trace.lines().last().unwrap();
    assert_eq!(last, "unhealthy: report starting starting unhealthy, stop c within 10s");
}

#[test]
fn a_task_that_serves_is_withdrawn_and_drained_before_it_is_stopped() {
    check(
        "run\npulled\ncreated\nstarted\nshutdown\nwithdrawn\ndrained\nstopped\nremove\nremoved\ngone",
        &expect![[r"
            run: report accepted accepted, report preparing preparing, pull
            pulled: create
            created: report ready prepared, report starting starting, start c
            started: report running started
            shutdown: report running started, withdraw
            withdrawn: drain c within 10s
            drained: stop c within 10s
            stopped: withdraw, report shutdown shutdown
            remove: report shutdown shutdown, remove c
            removed: 
            gone: 
        "]],
    );
}

#[test]
fn a_stop_does_not_wait_for_managers_that_are_away() {
    check(
        "run\npulled\ncreated\nstarted\nshutdown\nwait 4\nwait 1\ndrained\nexits 0\nstopped",
        &expect![[r"
            run: report accepted accepted, report preparing preparing, pull
            pulled: create
            created: report ready prepared, report starting starting, start c
            started: report running started
            shutdown: report running started, withdraw
            wait 4: 
            wait 1: drain c within 10s
            drained: stop c within 10s
            exits 0: withdraw, report shutdown shutdown
            stopped: 
        "]],
    );
}

#[test]
fn nothing_waits_longer_or_shorter_when_the_clock_is_set() {
    check(
        "run
         pulled
         created
         started
         clock 1000000
         shutdown
         clock 0
         wait 4
         clock 2000000
         wait 1
         drained
         fails
         clock 0
         wait 1",
        &expect![[r"
            run: report accepted accepted, report preparing preparing, pull
            pulled: create
            created: report ready prepared, report starting starting, start c
            started: report running started
            clock 1000000: 
            shutdown: report running started, withdraw
            clock 0: 
            wait 4: 
            clock 2000000: 
            wait 1: drain c within 10s
            drained: stop c within 10s
            fails: report running started (it cannot be stopped yet: )
            clock 0: 
            wait 1: stop c within 10s
        "]],
    );
}

#[test]
fn a_task_that_ends_by_itself_says_how() {
    let start = "run\npulled\ncreated\nstarted\n";
    for (event, last) in [
        ("exits 0", "withdraw, report complete finished"),
        ("exits 3", "withdraw, report failed started (task: non-zero exit (3))"),
    ] {
        let trace = Story::new().tell(&format!("{start}{event}"));
        assert_eq!(trace.lines().last().unwrap(), format!("{event}: {last}"));
    }
}

#[test]
fn a_process_that_ends_while_it_is_being_started_is_not_forgotten() {
    check(
        "run\npulled\ncreated\nexits 1\nstarted",
        &expect![[r"
            run: report accepted accepted, report preparing preparing, pull
            pulled: create
            created: report ready prepared, report starting starting, start c
            exits 1: 
            started: report running started, withdraw, report failed started (task: non-zero exit (1))
        "]],
    );
}

#[test]
fn an_image_that_is_not_there_rejects_the_task() {
    check(
        "run\nfails No such image: nope:latest",
        &expect![[r"
            run: report accepted accepted, report preparing preparing, pull
            fails No such image: nope:latest: report rejected preparing (No such image: nope:latest)
        "]],
    );
}

#[test]
fn a_container_whose_start_failed_is_killed_before_that_is_told() {
    check(
        "run\npulled\ncreated\nfails no time\nfails busy\nwait 1\nstopped",
        &expect![[r"
            run: report accepted accepted, report preparing preparing, pull
            pulled: create
            created: report ready prepared, report starting starting, start c
            fails no time: stop c within 0s
            fails busy: report starting starting (it cannot be stopped yet: busy)
            wait 1: stop c within 0s
            stopped: withdraw, report failed starting (no time)
        "]],
    );
}

#[test]
fn a_task_that_cannot_be_stopped_has_not_ended() {
    let fails = "fails busy\nwait 1\n".repeat(6);
    check(
        &format!("run\npulled\ncreated\nstarted\nshutdown\nwithdrawn\ndrained\n{fails}stopped"),
        &expect![[r"
            run: report accepted accepted, report preparing preparing, pull
            pulled: create
            created: report ready prepared, report starting starting, start c
            started: report running started
            shutdown: report running started, withdraw
            withdrawn: drain c within 10s
            drained: stop c within 10s
            fails busy: report running started (it cannot be stopped yet: busy)
            wait 1: stop c within 10s
            fails busy: 
            wait 1: stop c within 10s
            fails busy: 
            wait 1: stop c within 10s
            fails busy: 
            wait 1: stop c within 10s
            fails busy: 
            wait 1: stop c within 10s
            fails busy: 
            wait 1: stop c within 10s
            stopped: withdraw, report shutdown shutdown
        "]],
    );
}

#[test]
fn what_begins_to_run_after_its_end_was_told_is_killed() {
    let mut story = Story::new();
    story.tell("run\npulled\ncreated\nfails no time\nstopped");
    let trace = story.tell("begun\nfails busy\nwait 1\nstopped\nexits 137\ngone\nremoved");
    expect![[r"
        begun: stop c within 0s
        fails busy: 
        wait 1: stop c within 0s
        stopped: 
        exits 137: 
        gone: remove c
        removed: 
    "]]
    .assert_eq(&trace);
    assert!(story.worker.is_empty());
}

#[test]
fn what_has_begun_and_is_stopped_is_not_stopped_again() {
    let mut story = Story::new();
    story.tell("run\npulled\ncreated\nbegun\nstarted");
    let trace = story.tell("shutdown\nwithdrawn\ndrained\nstopped\nexits 137");
    expect![[r"
        shutdown: report running started, withdraw
        withdrawn: drain c within 10s
        drained: stop c within 10s
        stopped: withdraw, report shutdown shutdown
        exits 137: 
    "]]
    .assert_eq(&trace);
}

#[test]
fn a_pull_is_called_off_when_the_task_is_not_wanted_any_more() {
    check(
        "run\nshutdown\naborted\ngone",
        &expect![[r"
            run: report accepted accepted, report preparing preparing, pull
            shutdown: report preparing preparing, abort
            aborted: report shutdown shutdown
            gone: 
        "]],
    );
}

#[test]
fn what_is_no_longer_assigned_is_taken_down_and_forgotten() {
    let mut story = Story::new();
    story.tell("run\npulled\ncreated\nstarted");
    let trace = story.tell("gone\nstopped\nremoved");
    expect![[r"
        gone: withdraw, stop c within 10s
        stopped: withdraw, report shutdown shutdown, remove c
        removed: 
    "]]
    .assert_eq(&trace);
    assert!(story.worker.is_empty());
}

#[test]
fn a_node_that_leaves_drains_its_tasks_if_managers_know() {
    let mut story = Story::new();
    story.tell("run\npulled\ncreated\nstarted");
    let trace = story.tell("leave told\nwait 1\nwait 1\ndrained\nstopped\nremoved");
    expect![[r"
        leave told: withdraw
        wait 1: 
        wait 1: drain c within 10s
        drained: stop c within 10s
        stopped: withdraw, report shutdown shutdown, remove c
        removed: 
    "]]
    .assert_eq(&trace);
    assert!(story.worker.is_empty());
}

#[test]
fn a_node_that_leaves_unheard_takes_its_tasks_down_at_once() {
    let mut story = Story::new();
    story.tell("run\npulled\ncreated\nstarted");
    let trace = story.tell("leave\nstopped\nremoved");
    expect![[r"
        leave: withdraw, stop c within 10s
        stopped: withdraw, report shutdown shutdown, remove c
        removed: 
    "]]
    .assert_eq(&trace);
    assert!(story.worker.is_empty());
}

#[test]
fn a_removal_that_fails_is_tried_again() {
    let mut story = Story::new();
    story.tell("run\npulled\ncreated\nstarted\ngone\nstopped");
    let trace = story.tell("fails busy\nwait 0\nwait 1\nremoved");
    expect![[r"
        fails busy: 
        wait 0: 
        wait 1: remove c
        removed: 
    "]]
    .assert_eq(&trace);
    assert!(story.worker.is_empty());
}
