//! What tasks are made from is said once, and what is not understood costs nothing else.

use super::*;
use crate::worker::Assigned;
use serde::Serialize;
use types::{FileContent, SharedSpec, SpecId};
use wire::Parts;

fn spec(image: &str) -> SharedSpec {
    let mut spec = SharedSpec::default();
    spec.container.image = image.into();
    spec
}

fn said(specs: &[&SharedSpec]) -> Parts<SpecId, SharedSpec> {
    specs.iter().map(|spec| (spec.id().clone(), SharedSpec::clone(spec))).collect()
}

fn named(tasks: &[(&str, &SharedSpec)]) -> Parts<TaskId, Task> {
    let task = |(id, spec): &(&str, &SharedSpec)| {
        let (id, spec) = (TaskId::from(*id), spec.by_id());
        (id.clone(), Task { id, spec, ..Task::default() })
    };
    tasks.iter().map(task).collect()
}

/// What the worker is told of tasks, where a manager has sent this.
fn assigned(story: &mut Story, message: &impl Serialize) -> Assigned {
    let message: SessionMessage = wire::decode(&wire::encode(message).unwrap()).unwrap();
    let outputs = story.session.handle(Event::Message(message), story.now);
    story.session.handle(Event::CarriedOut { applied: 0 }, story.now);
    let orders = outputs.into_iter().filter_map(|output| match output {
        Output::Order(Order::Work(
            worker::Event::Whole { tasks, .. } | worker::Event::Changed { tasks, .. },
        )) => Some(tasks),
        _ => None,
    });
    orders.last().unwrap()
}

fn images(assigned: &Assigned) -> Vec<(&str, &str)> {
    let tasks = assigned.understood.iter();
    tasks.map(|(id, task)| (id.as_str(), task.spec.container.image.as_str())).collect()
}

fn begun() -> Story {
    let mut story = Story::new();
    story.tell("welcome\ndone 0");
    story
}

#[test]
fn a_spec_is_known_from_when_it_was_said_until_no_task_is_made_from_it() {
    let (one, two) = (spec("one"), spec("two"));
    let mut story = begun();
    let whole = Assignments { version: 1, specs: said(&[&one]), ..Assignments::default() };
    let whole = Assignments { tasks: named(&[("a", &one), ("b", &one)]), ..whole };
    let tasks = assigned(&mut story, &SessionMessage::Whole(whole.clone()));
    assert_eq!(images(&tasks), [("a", "one"), ("b", "one")]);
    assert!(tasks.understood[&"a".into()].spec.is_shared_with(&tasks.understood[&"b".into()].spec));

    let change = Difference { from: 1, version: 2, specs: said(&[&two]), ..Difference::default() };
    let change = Difference { tasks: named(&[("c", &one), ("d", &two)]), ..change };
    let tasks = assigned(&mut story, &SessionMessage::Difference(change));
    assert_eq!(images(&tasks), [("c", "one"), ("d", "two")]);

    let removed_specs = [one.id().clone()].into();
    let change = Difference { from: 2, version: 3, removed_specs, ..Difference::default() };
    let change = Difference { tasks: named(&[("e", &one), ("f", &two)]), ..change };
    let tasks = assigned(&mut story, &SessionMessage::Difference(change));
    assert_eq!(images(&tasks), [("f", "two")]);
    assert_eq!(tasks.others[&"e".into()], "what it is made from was not said");

    // A session that begins anew knows nothing of the one before.
    let mut story = begun();
    let nothing = Assignments { specs: Parts::default(), ..whole };
    let tasks = assigned(&mut story, &SessionMessage::Whole(nothing));
    assert_eq!(tasks.others.len(), 2);
}

/// A whole set as a later release may write it.
#[derive(Serialize)]
struct Newer {
    version: u64,
    specs: Parts<SpecId, BTreeMap<&'static str, &'static str>>,
    tasks: Parts<TaskId, NewerTask>,
}

#[derive(Serialize)]
struct NewerTask {
    id: &'static str,
    spec: SpecId,
    desired: &'static str,
}

#[test]
fn a_task_that_is_not_understood_costs_no_other() {
    let task = |id, spec: &str, desired| {
        let spec = spec.into();
        (TaskId::from(id), NewerTask { id, spec, desired })
    };
    let newer = Newer {
        version: 1,
        specs: [
            (SpecId::from("known"), BTreeMap::from([("color", "blue")])),
            (SpecId::from("newer"), BTreeMap::from([("container", "many")])),
        ]
        .into_iter()
        .collect(),
        tasks: [
            task("a", "known", "running"),
            task("b", "known", "hibernating"),
            task("c", "newer", "running"),
        ]
        .into_iter()
        .collect(),
    };
    let tasks = assigned(&mut begun(), &BTreeMap::from([("Whole", newer)]));
    assert_eq!(images(&tasks), [("a", "")]);
    let why = |id: &str| tasks.others[&TaskId::from(id)].as_str();
    assert!(why("b").contains("unknown variant `hibernating`"), "{}", why("b"));
    assert!(why("c").contains("invalid type: string \"many\""), "{}", why("c"));
}

#[test]
fn a_task_gets_its_files_and_nobody_keeps_what_no_task_needs() {
    let mut with_key = spec("one");
    with_key.container.secrets =
        vec![types::FileReference { id: "k".into(), name: "key".into(), ..Default::default() }];
    let content = FileContent { data: b"sesame".to_vec().into(), templating: None };
    let whole = Assignments {
        version: 1,
        specs_with_files: said(&[&with_key]),
        secrets: [("k".into(), content.clone()), ("other".into(), content)].into_iter().collect(),
        tasks: named(&[("a", &with_key)]),
        ..Assignments::default()
    };
    let mut story = begun();
    let tasks = assigned(&mut story, &SessionMessage::Whole(whole.clone()));
    let files = &tasks.files[&"a".into()];
    assert_eq!(files.secrets.keys().collect::<Vec<_>>(), [&"k".into()]);
    assert_eq!(files.missing(&with_key.container), None);
    assert!(!format!("{tasks:?}").contains("sesame"));

    let gone = Difference { from: 1, version: 2, ..Difference::default() };
    let gone = Difference { removed_secrets: ["k".into(), "other".into()].into(), ..gone };
    let outputs = story.session.handle(Event::Message(SessionMessage::Difference(gone)), story.now);
    assert!(!outputs.iter().any(|output| matches!(output, Output::Order(Order::Work(_)))));
    assert!(story.session.materials.secrets.is_empty());
    let again = Difference { from: 2, version: 3, ..Difference::default() };
    let again = Difference { tasks: named(&[("b", &with_key)]), ..again };
    let tasks = assigned(&mut story, &SessionMessage::Difference(again));
    assert!(tasks.files.is_empty() && tasks.understood.contains_key(&"b".into()));

    // A release before secrets does not find what the task is made from.
    let former = Assignments { specs_with_files: Parts::default(), ..whole };
    let mut story = begun();
    let tasks = assigned(&mut story, &SessionMessage::Whole(former));
    assert_eq!(tasks.others[&"a".into()], "what it is made from was not said");
}
