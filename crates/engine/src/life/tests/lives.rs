//! Made, started, stopped, removed.

use super::{Stage, eventually, soon};
use crate::*;
use futures_util::StreamExt;
use std::time::Duration;
use types::{Fault, FaultKind, Mount};

#[tokio::test]
async fn a_container_runs_writes_and_ends() {
    let stage = Stage::new().await;
    let id = stage.created(|config| config.name = "/one".to_owned()).await;
    assert_eq!(stage.status("one").await, Status::Created);
    assert!(stage.engine.start("one").await.unwrap());
    assert!(!stage.engine.start(&id[..5]).await.unwrap(), "it runs already");
    stage.fake.write(&id, "hello\nwor", false);
    stage.fake.write(&id, "oops\n", true);
    stage.fake.end(&id, 3);
    assert_eq!(stage.ended(&id).await.code, 3);
    // All that was written before the end is in the log when the end is known.
    let log = stage.log(&id).await;
    assert!(log.contains("O hello\n") && log.contains("E oops\n"), "{log:?}");
    assert!(log.ends_with("O wor"), "{log:?}");
    assert_eq!(stage.fake.spec(&id), None);
    assert!(stage.engine.start(&id).await.unwrap(), "it can be started again");
    assert_eq!(stage.engine.inspect(&id).await.unwrap().state.starts, 2);
}

#[tokio::test]
async fn a_start_that_fails_leaves_nothing_and_tells_why() {
    let stage = Stage::new().await;
    let id = stage.created(|_| {}).await;
    let fault = Fault::invalid("exec: \"serve\": executable file not found in $PATH");
    stage.fake.set_broken(Some(fault.clone()));
    assert_eq!(stage.engine.start(&id).await.unwrap_err(), fault);
    let seen = stage.engine.inspect(&id).await.unwrap().state;
    assert_eq!((seen.status, seen.exit_code, seen.error), (Status::Created, 127, fault.message));
    assert!(!stage.dir.path().join("run").join(&id).exists());
    stage.fake.set_broken(None);
    assert!(stage.engine.start(&id).await.unwrap());
}

#[tokio::test]
async fn stopping_asks_first_and_kills_after_the_grace_period() {
    let stage = Stage::new().await;
    let polite = stage.running(|_| {}).await;
    assert!(soon(stage.engine.stop(&polite, None, None)).await.unwrap());
    assert_eq!(stage.fake.signals(&polite), [15]);
    assert_eq!(stage.ended(&polite).await.code, 143);
    assert!(!stage.engine.stop(&polite, None, None).await.unwrap());
    stage.fake.set_stubborn(true);
    let stubborn = stage.running(|_| {}).await;
    let grace = Some(Duration::from_millis(20));
    assert!(soon(stage.engine.stop(&stubborn, Some("INT"), grace)).await.unwrap());
    assert_eq!(stage.fake.signals(&stubborn), [2, 9]);
}

#[tokio::test]
async fn a_name_is_taken_until_its_container_is_removed() {
    let stage = Stage::new().await;
    let id = stage.running(|config| config.name = "web".to_owned()).await;
    let again = stage.try_create(|config| config.name = "web".to_owned()).await.unwrap_err();
    assert_eq!(again.kind, FaultKind::Conflict);
    assert!(again.message.contains("The container name \"/web\" is already in use"), "{again}");
    let refused = stage.engine.remove("web", false, false).await.unwrap_err();
    assert!(refused.message.contains("container is running"), "{refused}");
    let waiting = stage.engine.wait("web", WaitFor::Removed);
    let (waited, removed) =
        soon(async { tokio::join!(waiting, stage.engine.remove("web", true, true)) }).await;
    removed.unwrap();
    assert_eq!(waited.unwrap().code, 137);
    assert_eq!(stage.engine.inspect("web").await.unwrap_err().message, "No such container: web");
    assert!(stage.fake.ids().is_empty());
    assert!(!stage.dir.path().join("engine/containers").join(&id).exists());
    assert!(stage.engine.volumes().await.unwrap().is_empty(), "anonymous volumes go along");
    stage.created(|config| config.name = "web".to_owned()).await;
}

#[tokio::test]
async fn a_container_that_nobody_waits_for_any_more_is_not_left_behind() {
    let stage = Stage::new().await;
    stage.fake.set_slow(true);
    let creating = stage.created(|config| config.name = "web".to_owned());
    let given_up = tokio::time::timeout(Duration::from_millis(50), creating).await;
    assert!(given_up.is_err());
    stage.fake.set_slow(false);
    eventually(async || {
        let made = stage.try_create(|config| config.name = "web".to_owned()).await;
        made.is_ok()
    })
    .await;
    assert_eq!(stage.engine.list(true).await.len(), 1);
    assert_eq!(stage.fake.ids().len(), 1);
}

#[tokio::test]
async fn the_end_of_an_earlier_run_does_not_end_a_later_one() {
    let stage = Stage::new().await;
    let id = stage.running(|_| {}).await;
    let exit = Exit { code: 1, at: types::Timestamp(1) };
    stage.fake.tell(&Happening::Ended { id: id.clone(), exit });
    // Told after it, and so handled after it.
    let other = stage.running(|_| {}).await;
    stage.fake.end(&other, 0);
    stage.ended(&other).await;
    assert_eq!(stage.status(&id).await, Status::Running);
}

#[tokio::test]
async fn an_end_is_noted_also_when_the_clock_was_set_back() {
    let stage = Stage::new().await;
    let id = stage.running(|_| {}).await;
    stage.fake.end_at(&id, Exit { code: 6, at: types::Timestamp(1) });
    assert_eq!(stage.ended(&id).await.code, 6);
}

#[tokio::test]
async fn a_container_on_the_bridge_is_attached_and_detached_by_the_engine() {
    let stage = Stage::new().await;
    let id = stage.running(|config| config.network = NetworkMode::Bridge).await;
    let info = stage.engine.inspect(&id).await.unwrap();
    let netns = info.netns.unwrap();
    assert!(info.address.is_some());
    let spec = stage.fake.spec(&id).unwrap();
    let namespaces = spec["linux"]["namespaces"].as_array().unwrap();
    assert!(namespaces.iter().any(|one| one["path"] == netns.to_str().unwrap()));
    let resolv = stage.dir.path().join("engine/containers").join(&id).join("resolv.conf");
    assert!(std::fs::read_to_string(resolv).unwrap().starts_with("nameserver 127.0.0.11\n"));
    stage.fake.end(&id, 0);
    stage.ended(&id).await;
    assert_eq!(stage.engine.inspect(&id).await.unwrap().netns, None);
    let unattached = stage.created(|config| config.network = NetworkMode::Attached).await;
    let fault = stage.engine.start(&unattached).await.unwrap_err();
    assert!(fault.message.ends_with("is not attached"), "{fault}");
}

#[tokio::test]
async fn mistakes_are_found_when_a_container_is_made() {
    let stage = Stage::new().await;
    let fault = async |change: &dyn Fn(&mut ContainerConfig)| {
        stage.try_create(change).await.unwrap_err().message
    };
    let image = |config: &mut ContainerConfig| config.spec.image = "nothing".to_owned();
    assert_eq!(fault(&image).await, "No such image: nothing:latest");
    let mounted = |config: &mut ContainerConfig| {
        let kind = types::MountKind::Bind;
        let (source, target) = ("/no/such".to_owned(), "/x".to_owned());
        config.spec.mounts = vec![Mount { kind, source, target, ..Mount::default() }];
    };
    assert!(fault(&mounted).await.ends_with("bind source path does not exist: /no/such"));
    let driver = |config: &mut ContainerConfig| config.log.driver = "splunk".to_owned();
    assert!(fault(&driver).await.contains("no log driver named 'splunk' is registered"));
    let dir = |config: &mut ContainerConfig| config.spec.dir = "relative".to_owned();
    assert!(fault(&dir).await.contains("needs to be an absolute path"));
    assert!(stage.fake.ids().is_empty() && stage.engine.list(true).await.is_empty());
    let left = std::fs::read_dir(stage.dir.path().join("engine/containers")).unwrap().count();
    assert_eq!(left, 0);
}

#[tokio::test]
async fn a_container_that_removes_itself_is_gone_after_its_end() {
    let stage = Stage::new().await;
    let id = stage.running(|config| config.auto_remove = true).await;
    let removed = stage.engine.wait(&id, WaitFor::Removed);
    stage.fake.end(&id, 2);
    assert_eq!(soon(removed).await.unwrap().code, 2);
    assert!(stage.engine.list(true).await.is_empty());
}

#[tokio::test]
async fn a_container_that_removes_itself_outlives_restarts_with_its_volumes() {
    let stage = Stage::new().await;
    let id = stage.running(|config| config.auto_remove = true).await;
    let mut events = stage.engine.events(None, None);
    for starts in 2..5 {
        soon(stage.engine.restart(&id, None, None)).await.unwrap();
        let seen = stage.engine.inspect(&id).await.unwrap().state;
        assert_eq!((seen.status, seen.starts), (Status::Running, starts));
        assert_eq!(stage.engine.volumes().await.unwrap().len(), 1);
    }
    while soon(events.next()).await.unwrap().unwrap().action != "restart" {}
    let removed = stage.engine.wait(&id, WaitFor::Removed);
    stage.engine.stop(&id, None, None).await.unwrap();
    soon(removed).await.unwrap();
    assert!(stage.engine.volumes().await.unwrap().is_empty());
}

#[tokio::test]
async fn tasks_of_services_that_were_made_with_a_buffer_that_nothing_uses_go_on() {
    let stage = Stage::new().await;
    let with = |is_tasks| {
        move |config: &mut ContainerConfig| {
            config.is_tasks = is_tasks;
            config.log.options.insert("max-buffer-size".to_owned(), "4m".to_owned());
        }
    };
    let refused = stage.try_create(with(false)).await.unwrap_err().message;
    assert!(refused.contains("only supported with 'mode=non-blocking'"), "{refused}");
    let made = stage.try_create(with(true)).await.unwrap();
    let info = stage.engine.inspect(&made.id).await.unwrap();
    assert!(info.config.log.options.is_empty(), "{:?}", info.config.log);
}

#[tokio::test]
async fn what_runs_is_removed_by_force_alone() {
    let stage = Stage::new().await;
    let id = stage.running(|config| config.auto_remove = true).await;
    let container = stage.engine.containers().remove(0);
    stage.engine.remove_itself(&container).await;
    assert_eq!(stage.engine.remove(&id, false, true).await.unwrap_err().kind, FaultKind::Conflict);
    assert_eq!(stage.status(&id).await, Status::Running);
    stage.engine.remove(&id, true, true).await.unwrap();
    assert!(stage.fake.ids().is_empty());
}
