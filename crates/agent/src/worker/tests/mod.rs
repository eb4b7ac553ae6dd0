mod any_order;

use super::*;
use expect_test::{Expect, expect};
use std::fmt::Write as _;
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
            Operation::Create(_) => "create".into(),
            Operation::Start { container } => format!("start {container}"),
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
        let mut trace = String::new();
        for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let event = self.event(line);
            let effects = self.worker.handle(event, self.now);
            let effects: Vec<String> = effects.iter().map(render).collect();
            writeln!(trace, "{line}: {}", effects.join(", ")).unwrap();
        }
        trace
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
fn a_task_that_was_unhealthy_when_the_daemon_died_is_still_withdrawn_first() {
    let mut entry = Entry { task: task("t", DesiredState::Running), ..Entry::default() };
    entry.status.state = TaskState::Running;
    entry.status.unhealthy = true;
    entry.status.container = Some(ContainerStatus { id: "c".into(), ..Default::default() });
    let found = Observed { pid: 7, running: true, has_health_check: true, ..Observed::default() };
    let found = [("c".to_owned(), found)].into();
    let (worker, effects) = Worker::restore([("t".into(), entry)].into(), &found, at(0));
    assert_eq!(effects, []);
    let mut story = Story { worker, now: at(0) };
    let trace = story.tell("run\nwithdrawn\ndrained");
    assert_eq!(
        trace,
        "run: report running  unhealthy, withdraw\nwithdrawn: drain c within 10s\ndrained: stop c within 10s\n"
    );
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
            fails: 
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
            fails busy: 
            wait 1: stop c within 0s
            stopped: withdraw, report failed starting (no time)
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

fn entry(state: TaskState) -> BTreeMap<TaskId, Entry> {
    let mut status = TaskStatus { state, message: "as it was".into(), ..TaskStatus::default() };
    status.container = Some(ContainerStatus { id: "c".into(), pid: 7, exit_code: 0 });
    [("t".into(), Entry { task: task("t", DesiredState::Running), status })].into()
}

fn restored(state: TaskState, found: Option<Observed>) -> (Worker, Vec<String>) {
    let observed = found.map(|found| ("c".to_owned(), found)).into_iter().collect();
    let (worker, effects) = Worker::restore(entry(state), &observed, at(0));
    (worker, effects.iter().map(render).collect())
}

#[test]
fn after_a_restart_what_runs_is_taken_over_and_what_ended_is_told() {
    let running = Observed { running: true, pid: 7, ..Observed::default() };
    let (worker, told) = restored(TaskState::Running, Some(running.clone()));
    assert!(told.is_empty() && worker.container_of(&"t".into()) == Some("c"));
    let (_, told) = restored(TaskState::Starting, Some(running));
    assert_eq!(told, ["report running started"]);
    let exit = Some(Exit { code: 3, error: String::new() });
    let (_, told) = restored(TaskState::Running, Some(Observed { exit, ..Observed::default() }));
    assert_eq!(told, ["withdraw", "report failed as it was (task: non-zero exit (3))"]);
    let (_, told) = restored(TaskState::Running, None);
    assert_eq!(told, ["withdraw", "report failed as it was (task: its container is gone)"]);
}

#[test]
fn after_a_restart_nothing_is_done_before_managers_have_spoken() {
    let running = Observed { running: true, ..Observed::default() };
    let (mut worker, _) = restored(TaskState::Running, Some(running));
    let changed = Event::Changed {
        tasks: Assigned::default(),
        removed: ["t".into()].into(),
        withdrawn: None,
    };
    assert_eq!(worker.handle(changed, at(0)), []);
    assert_eq!(worker.handle(Event::Tick, at(60)), []);
    assert_eq!(worker.deadline(), None);
    let nothing = Event::Whole { tasks: Assigned::default(), withdrawn: BTreeSet::new() };
    let effects = worker.handle(nothing, at(60));
    assert!(effects.iter().any(|it| render(it).starts_with("stop c")));
}

#[test]
fn a_task_that_managers_know_and_the_journal_does_not_has_failed() {
    let mut known = task("t", DesiredState::Running);
    known.status.state = TaskState::Running;
    let whole = Event::Whole { tasks: assigned(known), withdrawn: BTreeSet::new() };
    let effects = Worker::default().handle(whole, at(0));
    let effects: Vec<String> = effects.iter().map(render).collect();
    assert!(effects.iter().any(|it| it.starts_with("report failed")), "{effects:?}");
}

fn reports(effects: &[Effect]) -> Vec<(String, TaskState, String)> {
    let report = |effect: &Effect| match effect {
        Effect::Report { task, status } => {
            Some((task.to_string(), status.state, status.error.clone()))
        }
        Effect::Begin { .. } | Effect::Abort { .. } | Effect::Withdraw { .. } => None,
    };
    effects.iter().filter_map(report).collect()
}

#[test]
fn a_task_that_is_not_understood_is_rejected_in_words_and_all_others_go_on() {
    let mut worker = Worker::default();
    let mut tasks = assigned(task("known", DesiredState::Running));
    tasks.others.insert("newer".into(), "unknown variant `cluster`".into());
    let whole = Event::Whole { tasks: tasks.clone(), withdrawn: BTreeSet::new() };
    let effects = worker.handle(whole.clone(), at(0));
    let told = reports(&effects);
    let (id, state, error) = &told[0];
    assert_eq!((id.as_str(), *state), ("newer", TaskState::Rejected));
    assert!(error.ends_with("does not understand the task: unknown variant `cluster`"), "{error}");
    let told: BTreeSet<_> = told.iter().map(|it| it.0.as_str()).collect();
    assert_eq!(told, ["known", "newer"].into());

    // The next session is told again; one that is here goes on as it was.
    tasks.others.insert("known".into(), "unknown variant `hibernating`".into());
    tasks.understood.clear();
    let effects = worker.handle(Event::Whole { tasks, withdrawn: BTreeSet::new() }, at(1));
    let told: Vec<_> = reports(&effects).into_iter().map(|(id, state, _)| (id, state)).collect();
    assert!(told.contains(&("newer".to_owned(), TaskState::Rejected)), "{told:?}");
    assert!(!told.iter().any(|(_, state)| *state == TaskState::Shutdown), "{told:?}");

    // It is forgotten when it is no longer assigned.
    let gone = Event::Whole { tasks: Assigned::default(), withdrawn: BTreeSet::new() };
    worker.handle(gone, at(2));
    assert_eq!(worker.task(&"newer".into()), None);
}

#[test]
fn what_is_said_again_is_not_written_again() {
    let mut worker = Worker::default();
    let whole = || Event::Whole {
        tasks: assigned(task("t", DesiredState::Running)),
        withdrawn: BTreeSet::new(),
    };
    worker.handle(whole(), at(0));
    assert_eq!(worker.changed().len(), 1);
    worker.handle(whole(), at(1));
    assert_eq!(worker.changed(), BTreeMap::new());
}
