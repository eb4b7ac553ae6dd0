//! What a daemon takes over from the one before.

use super::*;

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
fn after_a_restart_what_runs_although_its_end_was_told_is_killed() {
    let running = Observed { running: true, pid: 7, ..Observed::default() };
    let (mut worker, told) = restored(TaskState::Failed, Some(running));
    assert!(told.is_empty(), "{told:?}");
    let mut known = task("t", DesiredState::Shutdown);
    known.status.state = TaskState::Failed;
    let whole = Event::Whole { tasks: assigned(known), withdrawn: BTreeSet::new() };
    let effects: Vec<String> = worker.handle(whole, at(60)).iter().map(render).collect();
    assert_eq!(effects, ["stop c within 0s"]);
}
