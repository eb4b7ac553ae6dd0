//! Who is given the bytes of secrets and configs.

use super::*;
use types::{Config, FileContent, FileReference, FileSpec, GivenFile, Secret};

fn spec(name: &str, size: usize) -> FileSpec {
    let content = FileContent { data: vec![1; size].into(), templating: None };
    FileSpec { name: name.to_owned(), content, ..FileSpec::default() }
}

fn reference<I: Default + for<'a> From<&'a str>>(id: &str) -> FileReference<I> {
    FileReference { id: id.into(), name: id.to_owned(), ..FileReference::default() }
}

/// The tasks of `lines` have the secret `key` and the config `app`, which is so large.
fn view_with_files(lines: &str, size: usize) -> View {
    let mut view = view(lines, &[]);
    let mut tx = Tx::new(&view);
    for name in ["key", "other"] {
        tx.put(Secret::new(name.into(), spec(name, 1)));
    }
    tx.put(Config::new("app".into(), spec("app", size)));
    let mut made_from = TaskSpec::default();
    made_from.container.secrets = vec![reference("key")];
    made_from.container.configs = vec![reference("app")];
    let ids: Vec<_> = view.tasks().map(|task| task.id.clone()).collect();
    for id in ids {
        tx.edit_task(&id, |task| task.spec = made_from.clone().into());
    }
    view.apply(&tx.finish(), Version(2), Timestamp(2));
    view
}

fn files(assignments: &Assignments) -> String {
    let files = &assignments.files;
    let secrets = files.secrets.keys().map(ToString::to_string);
    secrets.chain(files.configs.keys().map(ToString::to_string)).collect::<Vec<_>>().join(" ")
}

#[test]
fn a_node_has_the_files_of_tasks_that_are_to_start_and_no_others() {
    for (line, expected) in [
        ("t1 n1 assigned running", "key app"),
        ("t1 n1 starting running", "key app"),
        ("t1 n1 running running", ""),
        ("t1 n1 preparing shutdown", ""),
        ("t1 n1 failed running", ""),
        ("t1 n1 pending running", ""),
    ] {
        let view = view_with_files(line, 1);
        assert_eq!(files(&given(&view, "n1")), expected, "{line}");
        assert_eq!(files(&given(&view, "n2")), "", "{line}");
    }
}

#[test]
fn files_come_with_the_task_and_go_when_it_has_started() {
    let before = given(&view("", &[]), "n1");
    let starts = given(&view_with_files("t1 n1 assigned running", 1), "n1");
    let runs = given(&view_with_files("t1 n1 running running", 1), "n1");
    let come = difference(&before, &starts).unwrap();
    assert!(come.tasks.contains_key(&"t1".into()) && come.secrets.contains_key(&"key".into()));
    assert!(come.specs.is_empty() && come.specs_with_files.len() == 1);
    assert_eq!(starts.whole().specs_with_files, come.specs_with_files);
    let go = difference(&starts, &runs).unwrap();
    assert!(go.tasks.is_empty() && go.secrets.is_empty());
    assert_eq!(go.removed_secrets, ["key".into()].into());
    assert_eq!(go.removed_configs, ["app".into()].into());
    let mut has = before.whole();
    come.apply(&mut has);
    go.apply(&mut has);
    assert_eq!((has.secrets.len(), has.configs.len()), (0, 0));
    assert_eq!(difference(&runs, &runs), None);
}

#[test]
fn one_node_is_not_given_more_than_a_message_takes_nor_a_task_a_part() {
    let view = view_with_files("t1 n1 assigned running", 40 << 20);
    assert_eq!(files(&given(&view, "n1")), "");
}

/// Each task has a config of its own, of a size that two of them have place; what a task lacks
/// is said to it in words by its node.
fn view_with_large_files(lines: &str) -> View {
    let mut view = view_with_files(lines, 1);
    let mut tx = Tx::new(&view);
    let ids: Vec<_> = view.tasks().map(|task| task.id.clone()).collect();
    for id in ids {
        let own = format!("of-{id}");
        tx.put(Config::new(own.as_str().into(), spec(&own, 12 << 20)));
        let mut made_from = TaskSpec::default();
        made_from.container.configs = vec![reference(&own)];
        tx.edit_task(&id, |task| task.spec = made_from.into());
    }
    view.apply(&tx.finish(), Version(3), Timestamp(3));
    view
}

fn then(before: &Assignments, view: &View) -> Assignments {
    Topology::of(view).assignments(view, (&"n1".into(), &before.files), |_| false)
}

#[test]
fn a_task_that_has_its_files_does_not_lose_them_to_one_that_comes() {
    let two = "t5 n1 assigned running\nt6 n1 assigned running\n";
    let first = given(&view_with_large_files(two), "n1");
    assert_eq!(files(&first), "of-t5 of-t6");
    let three = format!("t1 n1 assigned running\n{two}");
    let second = then(&first, &view_with_large_files(&three));
    assert_eq!(files(&second), "of-t5 of-t6");
    // A manager that does not know what was given goes by how far they are.
    let further = three.replace("t6 n1 assigned", "t6 n1 preparing");
    let of_next = given(&view_with_large_files(&further), "n1");
    assert_eq!(files(&of_next), "of-t1 of-t6");
    // As soon as there is place, the one that waits is told, with the task.
    let started = three.replace("t5 n1 assigned", "t5 n1 running");
    let third = then(&second, &view_with_large_files(&started));
    assert_eq!(files(&third), "of-t1 of-t6");
    let told = difference(&second, &third).unwrap();
    let keys = |it: &wire::Difference| it.tasks.keys().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(keys(&told), ["t1"]);
    assert!(told.configs.contains_key(&"of-t1".into()) && told.configs.len() == 1);
    assert_eq!(told.removed_configs, ["of-t5".into()].into());
}
