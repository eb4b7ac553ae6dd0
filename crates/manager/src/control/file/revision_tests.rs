use super::super::{with_new, without};
use super::*;
use types::{
    Config, FailureAction, FileContent, FileReference, FileTarget, Secret, SecretId, Task,
    TaskState, Templating, Timestamp, UpdateState, UpdateStatus,
};

fn spec(name: &str, data: &[u8]) -> FileSpec {
    let content = FileContent { data: data.to_vec().into(), templating: None };
    FileSpec { name: name.to_owned(), content, ..FileSpec::default() }
}

fn applied(mut view: View, changes: Result<Changes, Fault>) -> View {
    let version = Version(view.version().0 + 1);
    view.apply(&changes.unwrap(), version, Timestamp(1));
    view
}

fn reference(id: &str) -> FileReference<SecretId> {
    let target = FileTarget { name: "key".to_owned(), ..FileTarget::default() };
    FileReference { id: id.into(), name: "key".to_owned(), target }
}

/// The secret `key`, first revision, and services that refer to it.
fn with_services(names: &[&str]) -> View {
    let view = View::default();
    let view = applied(view.clone(), with_new::<Secret>(&view, "one".into(), spec("key", b"1")));
    let mut tx = Tx::new(&view);
    for name in names {
        let mut service = Service { id: (*name).into(), ..Service::default() };
        (*name).clone_into(&mut service.spec.name);
        service.spec.task.container.secrets = vec![reference("one")];
        tx.put_service(service);
    }
    let changes = tx.finish();
    applied(view, Ok(changes))
}

fn next(view: &View, from: &str, new: &str, data: &[u8]) -> Result<Changes, Fault> {
    let was = view.get::<Secret>(&from.into()).unwrap();
    let wanted = FileSpec { revision: was.spec.revision + 1, ..spec("key", data) };
    with_next::<Secret>(view, (&from.into(), was.meta.version), (new.into(), wanted))
}

fn service<'a>(view: &'a View, name: &str) -> &'a Service {
    view.service(&name.into()).unwrap()
}

/// The secret of a service now, and before the last update.
fn secrets(view: &View, name: &str) -> (String, Option<String>) {
    let of = |spec: &ServiceSpec| spec.task.container.secrets[0].id.to_string();
    let service = service(view, name);
    (of(&service.spec), service.previous_spec.as_ref().map(of))
}

#[test]
fn another_content_is_another_secret_of_the_name_to_which_services_are_updated() {
    let view = with_services(&["web"]);
    store::rules::check(&view, &next(&view, "one", "two", b"2").unwrap()).unwrap();
    let view = applied(view.clone(), next(&view, "one", "two", b"2"));
    let named = view.secret_named("KEY").unwrap();
    assert_eq!((named.id.as_str(), named.spec.revision, named.spec.former), ("two", 1, false));
    let before = view.get::<Secret>(&"one".into()).unwrap();
    assert_eq!((before.spec.revision, before.spec.former), (0, true), "it may be needed again");
    assert_eq!(secrets(&view, "web"), ("two".to_owned(), Some("one".to_owned())));
    // By the next one, once the service has come to this one, the first is nobody's any more.
    let mut tx = Tx::new(&view);
    tx.edit_service(&"web".into(), |web| {
        web.update = Some(UpdateStatus::begun(UpdateState::Completed, Timestamp(1), ""));
    });
    let view = applied(view.clone(), Ok(tx.finish()));
    let view = applied(view.clone(), next(&view, "two", "three", b"3"));
    assert_eq!(secrets(&view, "web"), ("three".to_owned(), Some("two".to_owned())));
    assert!(view.get::<Secret>(&"one".into()).is_none());
    assert_eq!(view.secret_named("key").unwrap().spec.revision, 2);
}

#[test]
fn a_service_that_went_back_to_a_former_revision_follows_the_next_one() {
    let view = with_services(&["web"]);
    let view = applied(view.clone(), next(&view, "one", "two", b"2"));
    // Its update has failed.
    let mut web = service(&view, "web").clone();
    web.spec = web.previous_spec.take().unwrap();
    let state = UpdateState::RollbackCompleted;
    web.update = Some(UpdateStatus::begun(state, Timestamp(2), "rolled back"));
    let mut tx = Tx::new(&view);
    tx.put_service(web);
    planner::forget_former_files(&mut tx);
    let view = applied(view.clone(), Ok(tx.finish()));
    assert_eq!(secrets(&view, "web").0, "one");
    let view = applied(view.clone(), next(&view, "two", "three", b"3"));
    assert_eq!(secrets(&view, "web"), ("three".to_owned(), Some("one".to_owned())));
    assert!(service(&view, "web").update.is_none(), "it is an update like any other");
    assert!(view.get::<Secret>(&"two".into()).is_none(), "nobody has it");
}

#[test]
fn a_service_may_stay_with_what_it_has() {
    let view = with_services(&["web", "calm"]);
    let mut calm = service(&view, "calm").clone();
    calm.spec.labels.insert(FOLLOWS.to_owned(), "stay".to_owned());
    let mut tx = Tx::new(&view);
    tx.put_service(calm);
    let view = applied(view.clone(), Ok(tx.finish()));
    let view = applied(view.clone(), next(&view, "one", "two", b"2"));
    assert_eq!(secrets(&view, "web").0, "two");
    assert_eq!(secrets(&view, "calm"), ("one".to_owned(), None));
    let mut odd = service(&view, "calm").spec.clone();
    assert!(check_follows(&odd).is_ok());
    odd.labels.insert(FOLLOWS.to_owned(), "restart".to_owned());
    let refused = check_follows(&odd).unwrap_err();
    assert!(refused.message.contains("skep.file-update: \"restart\" (roll:"), "{refused}");
}

#[test]
fn the_files_of_tasks_that_run_are_replaced_where_the_service_says_so() {
    let view = with_services(&["web"]);
    let mut web = service(&view, "web").clone();
    web.spec.labels.insert(FOLLOWS.to_owned(), "signal=SIGHUP".to_owned());
    assert!(check_follows(&web.spec).is_ok());
    let mut tx = Tx::new(&view);
    for (id, state) in [("runs", TaskState::Running), ("over", TaskState::Complete)] {
        let mut task = Task { id: id.into(), service: "web".into(), ..Task::default() };
        (task.spec, task.node) = (web.spec.task.clone(), Some("n".into()));
        task.status.state = state;
        tx.put_task(task);
    }
    tx.put_service(web);
    let view = applied(view.clone(), Ok(tx.finish()));
    let view = applied(view.clone(), next(&view, "one", "two", b"2"));
    let task = |view: &View, id: &str| view.task(&id.into()).unwrap().as_ref().clone();
    let runs = task(&view, "runs");
    assert_eq!(runs.spec, service(&view, "web").spec.task, "nothing is to be replaced");
    assert_eq!(runs.refresh, Some(Refresh { number: 1, signal: "HUP".to_owned() }));
    assert_eq!(runs.due_refresh(&runs.status), runs.refresh.as_ref());
    let over = task(&view, "over");
    assert_eq!((over.spec.container.secrets[0].id.as_str(), over.refresh), ("one", None));
    let view = applied(view.clone(), next(&view, "two", "three", b"3"));
    assert_eq!(task(&view, "runs").refresh.unwrap().number, 2);
    let done = types::TaskStatus { refreshed: 2, ..runs.status.clone() };
    assert_eq!(task(&view, "runs").due_refresh(&done), None);
}

#[test]
fn what_is_no_next_revision_is_refused_and_the_same_content_is_none() {
    let view = with_services(&["web"]);
    let version = view.get::<Secret>(&"one".into()).unwrap().meta.version;
    let refused = |view: &View, id: &str, version, spec: FileSpec| {
        let spec = FileSpec { revision: 1, ..spec };
        let next = with_next::<Secret>(view, (&id.into(), version), ("new".into(), spec));
        next.unwrap_err().message
    };
    let late = refused(&view, "one", Version(9), spec("key", b"2"));
    assert!(late.ends_with("update out of sequence"), "{late}");
    let named = refused(&view, "one", version, spec("lock", b"2"));
    assert_eq!(named, "a secret keeps its name: key");
    let empty = refused(&view, "one", version, spec("key", b""));
    assert!(empty.starts_with("secret data must be larger than 0"), "{empty}");
    let same = applied(view.clone(), next(&view, "one", "two", b"1"));
    assert_eq!(same.secret_named("key").unwrap().id.as_str(), "one");
    assert_eq!(secrets(&same, "web"), ("one".to_owned(), None));
    let view = applied(view.clone(), next(&view, "one", "two", b"2"));
    let version = view.get::<Secret>(&"one".into()).unwrap().meta.version;
    let former = refused(&view, "one", version, spec("key", b"3"));
    assert_eq!(former, "secret key has a later revision: update that one");
    // A config of the same name is another matter.
    assert!(view.config_named("key").is_none());
    let config = with_new::<Config>(&view, "c".into(), spec("key", b"x"));
    let view = applied(view.clone(), config);
    let template = FileContent { data: b"y".to_vec().into(), templating: Some(Templating::Golang) };
    let wanted = FileSpec { revision: 1, content: template, ..spec("key", b"") };
    let version = view.get::<Config>(&"c".into()).unwrap().meta.version;
    let changes = with_next::<Config>(&view, (&"c".into(), version), ("d".into(), wanted));
    let view = applied(view.clone(), changes);
    let config = view.config_named("key").unwrap();
    assert_eq!(config.spec.content.templating, Some(Templating::Golang));
    assert!(view.get::<Config>(&"c".into()).is_none(), "nobody uses the former one");
}

#[test]
fn a_former_one_is_kept_as_long_as_a_task_has_it() {
    let view = with_services(&["web"]);
    let mut tx = Tx::new(&view);
    let mut task = Task { id: "t".into(), service: "other".into(), ..Task::default() };
    task.spec.container.secrets = vec![reference("one")];
    task.status.state = TaskState::Running;
    tx.put_task(task);
    tx.remove_service(&"web".into());
    let view = applied(view.clone(), Ok(tx.finish()));
    let view = applied(view.clone(), next(&view, "one", "two", b"2"));
    assert!(view.get::<Secret>(&"one".into()).is_some());
    let mut tx = Tx::new(&view);
    tx.edit::<Task>(&"t".into(), |task| task.status.state = TaskState::Complete);
    planner::forget_former_files(&mut tx);
    let view = applied(view.clone(), Ok(tx.finish()));
    assert!(view.get::<Secret>(&"one".into()).is_none());
    assert!(view.get::<Secret>(&"two".into()).is_some());
}

#[test]
fn a_name_is_removed_with_all_its_revisions_and_not_while_one_is_in_use() {
    let view = with_services(&["web"]);
    let view = applied(view.clone(), next(&view, "one", "two", b"2"));
    let mut web = service(&view, "web").clone();
    web.spec = web.previous_spec.take().unwrap();
    web.spec.update.failure_action = FailureAction::Pause;
    let mut tx = Tx::new(&view);
    tx.put_service(web);
    let view = applied(view.clone(), Ok(tx.finish()));
    for id in ["one", "two"] {
        let refused = without::<Secret>(&view, &id.into()).unwrap_err().message;
        assert_eq!(refused, "secret 'key' is in use by the following service: web");
    }
    let mut tx = Tx::new(&view);
    tx.remove_service(&"web".into());
    let view = applied(view.clone(), Ok(tx.finish()));
    let view = applied(view.clone(), without::<Secret>(&view, &"two".into()));
    assert_eq!(view.all::<Secret>().count(), 0);
}

/// Whoever makes a revision may not know of what is under way.
#[test]
fn what_has_not_proven_itself_is_no_way_back_and_what_is_paused_stays_so() {
    let of = |state: Option<UpdateState>| {
        let view = with_services(&["web"]);
        let mut web = service(&view, "web").clone();
        let mut good = web.spec.clone();
        good.task.container.image = "good".to_owned();
        web.previous_spec = Some(good);
        web.update = state.map(|state| UpdateStatus::begun(state, Timestamp(1), ""));
        let mut tx = Tx::new(&view);
        tx.put_service(web);
        let view = applied(view.clone(), Ok(tx.finish()));
        let view = applied(view.clone(), next(&view, "one", "two", b"2"));
        let web = service(&view, "web");
        let back = web.previous_spec.as_ref().unwrap().task.container.image.clone();
        (back, web.update.as_ref().map(|update| update.state))
    };
    let good = || "good".to_owned();
    assert_eq!(of(None), (good(), None));
    assert_eq!(of(Some(UpdateState::Updating)), (good(), None));
    assert_eq!(of(Some(UpdateState::RollbackStarted)), (good(), None));
    assert_eq!(of(Some(UpdateState::Paused)), (good(), Some(UpdateState::Paused)));
    assert_eq!(of(Some(UpdateState::Completed)), (String::new(), None));
}

/// What no task is replaced for makes no difference to this either.
#[test]
fn files_are_replaced_where_only_the_placement_has_changed_since() {
    let view = with_services(&["web"]);
    let mut web = service(&view, "web").clone();
    web.spec.labels.insert(FOLLOWS.to_owned(), "swap".to_owned());
    let mut task = Task { id: "runs".into(), service: "web".into(), ..Task::default() };
    (task.spec, task.node) = (web.spec.task.clone(), Some("n".into()));
    task.status.state = TaskState::Running;
    web.spec.task.placement.constraints = vec!["node.labels.a!=b".to_owned()];
    let mut tx = Tx::new(&view);
    tx.put(types::Node { id: "n".into(), ..types::Node::default() });
    tx.put_task(task);
    tx.put_service(web);
    let view = applied(view.clone(), Ok(tx.finish()));
    let view = applied(view.clone(), next(&view, "one", "two", b"2"));
    let runs = view.task(&"runs".into()).unwrap();
    assert_eq!(runs.spec.container.secrets[0].id.as_str(), "two");
    assert!(runs.spec.placement.constraints.is_empty() && runs.refresh.is_some());
    assert!(planner::is_current(&view, service(&view, "web"), runs));
}
