//! Secrets and configs of a task: in memory from its assignment to its start.

use super::*;
use crate::files::Files;
use types::{FileContent, FileReference};

fn with_key(desired: DesiredState, has_files: bool) -> Event {
    let mut task = task("t", desired);
    task.spec.container.secrets =
        vec![FileReference { id: "k".into(), name: "key".into(), ..FileReference::default() }];
    let mut tasks = assigned(task);
    if has_files {
        let content = FileContent { data: b"sesame".to_vec().into(), templating: None };
        let secrets = [("k".into(), content)].into();
        tasks.files.insert("t".into(), Files { secrets, ..Files::default() });
    }
    Event::Whole { tasks, withdrawn: BTreeSet::new() }
}

/// What operations that begin have of files.
fn given(effects: Vec<Effect>) -> Vec<Files> {
    let files = effects.into_iter().filter_map(|effect| match effect {
        Effect::Begin {
            operation: Operation::Create { files, .. } | Operation::Start { files, .. },
            ..
        } => Some(files),
        _ => None,
    });
    files.collect()
}

#[test]
fn files_are_kept_until_the_task_has_started_and_not_written_down() {
    let mut worker = Worker::default();
    let done = |outcome| Event::Done { task: "t".into(), outcome };
    let mut handle = |event| given(worker.handle(event, at(0)));
    handle(with_key(DesiredState::Ready, true));
    let created = handle(done(Outcome::Pulled));
    assert_eq!(created[0].secrets[&"k".into()].data.as_bytes(), b"sesame");
    handle(done(Outcome::Created { container: "c".into() }));
    let started = handle(with_key(DesiredState::Running, true));
    assert_eq!(started, created);
    handle(done(Outcome::Started { pid: 7, has_health_check: false }));
    // What comes late is not kept either.
    handle(with_key(DesiredState::Running, true));
    assert!(!format!("{worker:?}").contains("sesame"));
    assert!(!format!("{worker:?}").contains("Payload"), "{worker:?}");
    let written = wire::encode(&worker.entries()).unwrap();
    assert!(!written.windows(6).any(|window| window == b"sesame"));
}

#[test]
fn a_restart_starts_nothing_before_the_files_are_said_again() {
    let mut worker = Worker::default();
    let done = |outcome| Event::Done { task: "t".into(), outcome };
    worker.handle(with_key(DesiredState::Ready, true), at(0));
    worker.handle(done(Outcome::Pulled), at(0));
    worker.handle(done(Outcome::Created { container: "c".into() }), at(0));
    let observed = [("c".to_owned(), Observed::default())].into();
    let (mut worker, effects) = Worker::restore(worker.entries(), &observed, at(1));
    assert!(given(effects).is_empty());
    let started = given(worker.handle(with_key(DesiredState::Running, true), at(1)));
    assert_eq!(started[0].secrets.len(), 1);
}

/// What is said while others take the place that there is for files on their way.
#[test]
fn what_a_task_has_is_not_taken_from_it_and_what_comes_late_is_there() {
    for said in [[true, false], [false, true]] {
        let mut worker = Worker::default();
        let done = |outcome| Event::Done { task: "t".into(), outcome };
        for has_files in said {
            worker.handle(with_key(DesiredState::Ready, has_files), at(0));
        }
        let created = given(worker.handle(done(Outcome::Pulled), at(0)));
        assert_eq!(created[0].secrets.len(), 1, "{said:?}");
    }
}

/// The task that runs is to have other files, the `number`th time.
fn with_others(number: u64, has_files: bool) -> Event {
    let Event::Whole { mut tasks, withdrawn } = with_key(DesiredState::Running, has_files) else {
        panic!("it is the whole");
    };
    let task = tasks.understood.get_mut(&TaskId::from("t")).unwrap();
    task.refresh = Some(types::Refresh { number, signal: "HUP".to_owned() });
    Event::Whole { tasks, withdrawn }
}

#[test]
fn a_task_that_runs_gets_other_files_once_and_says_so() {
    let mut worker = Worker::default();
    let done = |outcome| Event::Done { task: "t".into(), outcome };
    // What begins, and what is reported of it.
    let told = |effects: &[Effect]| -> (Vec<String>, Vec<String>) {
        let (reports, others): (Vec<_>, Vec<_>) =
            effects.iter().partition(|effect| matches!(effect, Effect::Report { .. }));
        let report = |effect: &&Effect| match effect {
            Effect::Report { status, .. } => Some(format!("{} {}", status.refreshed, status.error)),
            _ => None,
        };
        let others = others.into_iter().map(render).collect();
        (others, reports.iter().filter_map(report).collect())
    };
    let mut handle = |event| told(&worker.handle(event, at(0)));
    handle(with_key(DesiredState::Ready, true));
    handle(done(Outcome::Pulled));
    handle(done(Outcome::Created { container: "c".into() }));
    handle(with_key(DesiredState::Running, true));
    handle(done(Outcome::Started { pid: 7, has_health_check: false }));
    assert_eq!(handle(with_others(1, false)).0, [""; 0], "not without the files");
    assert_eq!(handle(with_others(1, true)).0, ["refresh c HUP"]);
    assert_eq!(handle(done(Outcome::Refreshed)).1, ["1 "]);
    // Managers know it later.
    assert_eq!(handle(with_others(1, true)).0, [""; 0]);
    assert_eq!(handle(with_others(2, true)).0, ["refresh c HUP"]);
    // It is tried once more.
    assert_eq!(handle(done(Outcome::Failed("too slow".into()))), (vec![], vec![]));
    assert_eq!(worker.deadline(), Some(Duration::from_secs(1)));
    let mut handle = |event| told(&worker.handle(event, at(1)));
    assert_eq!(handle(Event::Tick).0, ["refresh c HUP"]);
    let why = "2 its secrets and configs are not the new ones: no place";
    assert_eq!(handle(done(Outcome::Failed("no place".into()))).1, [why]);
    assert!(!format!("{worker:?}").contains("Payload"), "{worker:?}");
    let observed = Observed { running: true, ..Observed::default() };
    let (mut worker, _) =
        Worker::restore(worker.entries(), &[("c".into(), observed)].into(), at(1));
    let again = worker.handle(with_others(2, true), at(1));
    assert!(!again.iter().any(|effect| render(effect).contains("refresh")), "{again:?}");
    let third = worker.handle(with_others(3, true), at(1));
    assert!(third.iter().any(|effect| render(effect).contains("refresh")), "{third:?}");
}

/// A task whose files are to be other ones, while this is on its way; what begins then.
fn story_of_others(events: Vec<Event>) -> (Worker, Vec<String>) {
    let mut worker = Worker::default();
    let mut begun = Vec::new();
    for event in events {
        let effects = worker.handle(event, at(0));
        let operations = effects.iter().filter(|it| matches!(it, Effect::Begin { .. }));
        begun.extend(operations.map(render));
    }
    (worker, begun)
}

fn done(outcome: Outcome) -> Event {
    Event::Done { task: "t".into(), outcome }
}

fn created() -> Event {
    done(Outcome::Created { container: "c".into() })
}

fn started(has_health_check: bool) -> Event {
    done(Outcome::Started { pid: 7, has_health_check })
}

fn has_files(worker: &Worker) -> bool {
    format!("{worker:?}").contains("Payload")
}

#[test]
fn other_files_that_come_before_a_task_runs_are_put_there_once_it_runs() {
    let (mut worker, begun) = story_of_others(vec![
        with_key(DesiredState::Running, true),
        done(Outcome::Pulled),
        created(),
        started(true),
        with_others(1, true),
        Event::Health { task: "t".into(), healthy: true },
    ]);
    assert_eq!(begun, ["pull", "create", "start c", "refresh c HUP"]);
    worker.handle(done(Outcome::Refreshed), at(0));
    assert!(!has_files(&worker), "{worker:?}");
}

#[test]
fn other_files_that_come_while_a_task_starts_are_put_there_once_it_runs() {
    let (mut worker, begun) = story_of_others(vec![
        with_key(DesiredState::Running, true),
        done(Outcome::Pulled),
        created(),
        with_others(1, true),
        started(false),
    ]);
    assert_eq!(begun, ["pull", "create", "start c", "refresh c HUP"]);
    worker.handle(done(Outcome::Refreshed), at(0));
    assert!(!has_files(&worker), "{worker:?}");
}

#[test]
fn a_task_that_starts_with_the_other_files_has_them() {
    let (worker, begun) = story_of_others(vec![
        with_key(DesiredState::Running, true),
        with_others(1, true),
        done(Outcome::Pulled),
        created(),
        started(false),
    ]);
    assert_eq!(begun, ["pull", "create", "start c"]);
    assert_eq!(worker.entries()[&"t".into()].status.refreshed, 1, "and managers hear of it");
    assert!(!has_files(&worker), "{worker:?}");
}

#[test]
fn other_files_that_come_while_others_are_put_there_are_put_there_after_them() {
    let (mut worker, begun) = story_of_others(vec![
        with_key(DesiredState::Running, true),
        done(Outcome::Pulled),
        created(),
        started(false),
        with_others(1, true),
        with_others(2, true),
        done(Outcome::Refreshed),
    ]);
    assert_eq!(begun, ["pull", "create", "start c", "refresh c HUP", "refresh c HUP"]);
    worker.handle(done(Outcome::Refreshed), at(0));
    assert_eq!(worker.entries()[&"t".into()].status.refreshed, 2);
    assert!(!has_files(&worker), "{worker:?}");
}
