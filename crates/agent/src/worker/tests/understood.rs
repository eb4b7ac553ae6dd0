//! What is understood of what managers say, and what of that is new.

use super::*;

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
