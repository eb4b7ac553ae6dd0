//! Images: fetched, kept and removed.

use super::{Stage, soon};
use crate::*;
use futures_util::StreamExt;
use serde_json::json;
use std::time::Duration;

#[tokio::test]
async fn a_tag_that_has_moved_is_fetched_again_and_a_digest_is_not() {
    let stage = Stage::new().await;
    let name = "docker.io/team/app:1";
    let config = || json!({"Cmd": ["serve"]});
    stage.fake.publish(name, 1, config());
    let first = stage.engine.ensure_image("team/app:1", None).await.unwrap();
    assert_eq!(stage.engine.ensure_image("team/app:1", None).await.unwrap(), first);
    assert_eq!((stage.fake.pulls(), stage.fake.asked()), (1, 1));
    stage.fake.publish(name, 2, config());
    let second = stage.engine.ensure_image("team/app:1", None).await.unwrap();
    assert_ne!(first.id, second.id);
    let pinned = format!("team/app:1@{}", second.digest);
    assert_eq!(stage.engine.ensure_image(&pinned, None).await.unwrap().id, second.id);
    let by_id = stage.engine.ensure_image(&first.id, None).await.unwrap();
    assert_eq!(by_id.id, first.id, "an id stands for itself");
    assert_eq!((stage.fake.pulls(), stage.fake.asked()), (2, 2), "nobody is asked of a digest");
}

#[tokio::test]
async fn an_image_that_is_only_here_serves_and_its_registry_is_left_alone_for_a_while() {
    let stage = Stage::new().await;
    for _ in 0..5 {
        stage.engine.ensure_image("web", None).await.unwrap();
    }
    assert_eq!((stage.fake.pulls(), stage.fake.asked()), (0, 1));
}

#[tokio::test]
async fn images_that_tasks_brought_go_and_what_a_user_wants_stays() {
    let stage = Stage::new().await;
    let config = || json!({"Cmd": ["serve"]});
    for (version, name) in [(1, "unused:1"), (2, "used:1"), (3, "wanted:1"), (4, "named:1")] {
        stage.fake.publish(&format!("docker.io/library/{name}"), version, config());
        stage.engine.ensure_image(name, None).await.unwrap();
    }
    stage.running(|config| config.spec.image = "used:1".to_owned()).await;
    soon(stage.engine.pull("wanted:1", None).unwrap().collect::<Vec<_>>()).await;
    stage.engine.tag("named:1", "mine:1").await.unwrap();
    // A task that comes later does not make it its own.
    stage.engine.ensure_image("wanted:1", None).await.unwrap();
    let days = |days: u64| clock::now().after(Duration::from_hours(days * 24));
    stage.engine.remove_task_images(days(0), false).await;
    let stage = stage.restart().await;
    let here = async |name: &str| stage.engine.image(name).await.is_ok();
    assert!(here("unused:1").await, "not yet");
    stage.engine.remove_task_images(days(6), false).await;
    assert!(here("unused:1").await, "not yet");
    stage.engine.remove_task_images(days(8), false).await;
    assert!(!here("unused:1").await);
    for name in ["used:1", "wanted:1", "named:1", "web"] {
        assert!(here(name).await, "{name}");
    }
}

#[tokio::test]
async fn what_a_user_has_named_stays_also_over_a_restart() {
    let stage = Stage::new().await;
    for (version, name) in [(1, "named:1"), (2, "pulled:1")] {
        let config = json!({"Cmd": ["serve"]});
        stage.fake.publish(&format!("docker.io/library/{name}"), version, config);
        stage.engine.ensure_image(name, None).await.unwrap();
    }
    let days = |days: u64| clock::now().after(Duration::from_hours(days * 24));
    stage.engine.remove_task_images(days(0), false).await;
    stage.engine.tag("named:1", "mine:1").await.unwrap();
    soon(stage.engine.pull("pulled:1", None).unwrap().collect::<Vec<_>>()).await;
    let stage = stage.restart().await;
    stage.engine.remove_task_images(days(8), false).await;
    for name in ["named:1", "pulled:1"] {
        assert!(stage.engine.image(name).await.is_ok(), "{name}");
    }
}

#[tokio::test]
async fn the_time_of_an_unused_image_begins_with_its_last_use() {
    let stage = Stage::new().await;
    for (version, name) in [(1, "used:1"), (2, "again:1")] {
        let config = json!({"Cmd": ["serve"]});
        stage.fake.publish(&format!("docker.io/library/{name}"), version, config);
        stage.engine.ensure_image(name, None).await.unwrap();
    }
    let days = |days: u64| clock::now().after(Duration::from_hours(days * 24));
    let here = async |name: &str| stage.engine.image(name).await.is_ok();
    // As if nothing had used them for long.
    let long_ago = |used: &mut types::Timestamp| *used = types::Timestamp(0);
    stage.engine.inner.task_images.lock().unwrap().values_mut().for_each(long_ago);
    let id = stage.running(|config| config.spec.image = "used:1".to_owned()).await;
    stage.engine.ensure_image("again:1", None).await.unwrap();
    stage.engine.remove_task_images(days(6), false).await;
    assert!(here("again:1").await, "a task was about to use it");
    soon(stage.engine.remove(&id, true, true)).await.unwrap();
    stage.engine.remove_task_images(days(12), false).await;
    assert!(here("used:1").await, "it was used on the sixth day");
    stage.engine.remove_task_images(days(14), false).await;
    assert!(!here("used:1").await);
}

#[tokio::test]
async fn an_image_that_could_not_be_removed_is_removed_later() {
    let stage = Stage::new().await;
    stage.fake.publish("docker.io/library/unused:1", 1, json!({"Cmd": ["serve"]}));
    stage.engine.ensure_image("unused:1", None).await.unwrap();
    let later = clock::now().after(Duration::from_hours(8 * 24));
    stage.fake.set_away(true);
    stage.engine.remove_task_images(later, false).await;
    stage.fake.set_away(false);
    let stage = stage.restart().await;
    assert!(stage.engine.image("unused:1").await.is_ok());
    stage.engine.remove_task_images(later, false).await;
    assert!(stage.engine.image("unused:1").await.is_err());
}

#[tokio::test]
async fn tasks_that_come_together_share_what_a_registry_says() {
    let stage = Stage::new().await;
    stage.fake.publish("docker.io/team/app:1", 1, json!({"Cmd": ["serve"]}));
    stage.engine.ensure_image("team/app:1", None).await.unwrap();
    let all = (0..20).map(|_| stage.engine.ensure_image("team/app:1", None));
    for image in futures_util::future::join_all(all).await {
        image.unwrap();
    }
    assert!(stage.fake.asked() <= 2, "asked {} times", stage.fake.asked());
}

#[tokio::test]
async fn images_are_fetched_once_and_kept_while_they_are_used() {
    let stage = Stage::new().await;
    let (one, two) = tokio::join!(
        stage.engine.ensure_image("extra", None),
        stage.engine.ensure_image("docker.io/library/extra:latest", None),
    );
    assert_eq!(one.unwrap().id, two.unwrap().id);
    assert_eq!(stage.fake.pulls(), 1);
    let progress = soon(stage.engine.pull("other", None).unwrap().collect::<Vec<_>>()).await;
    let last = progress.last().unwrap().clone().unwrap().status;
    assert_eq!(last, "Status: Downloaded newer image for other:latest");
    let id = stage.running(|_| {}).await;
    let used = stage.engine.remove_image("web", true).await.unwrap_err();
    assert!(used.message.contains("is being used by running container"), "{used}");
    stage.engine.tag("web", "also:1").await.unwrap();
    let untagged = stage.engine.remove_image("also:1", false).await.unwrap();
    assert_eq!(untagged, [Removed::Untagged("also:1".to_owned())]);
    soon(stage.engine.remove(&id, true, true)).await.unwrap();
    let image = stage.engine.image("web").await.unwrap().id;
    let removed = stage.engine.remove_image(&image[7..20], false).await.unwrap();
    assert_eq!(removed, [Removed::Untagged("web:latest".to_owned()), Removed::Deleted(image)]);
}

#[tokio::test]
async fn what_an_image_says_without_measure_is_refused_before_anything_is_made_of_it() {
    let stage = Stage::new().await;
    let many: serde_json::Map<_, _> = (0..5000).map(|it| (format!("/{it}"), json!({}))).collect();
    let variables: Vec<String> = (0..200_000).map(|number| format!("{number:x}=")).collect();
    let label = json!({"note": "x".repeat(4 << 20)});
    for (name, config) in [
        ("volumes", json!({"Cmd": ["serve"], "Volumes": many})),
        ("variables", json!({"Cmd": ["serve"], "Env": variables})),
        ("labels", json!({"Cmd": ["serve"], "Labels": label})),
    ] {
        stage.fake.add_image(&format!("docker.io/library/{name}:latest"), config);
        let made = stage.try_create(|config| config.spec.image = name.to_owned()).await;
        let refused = made.unwrap_err();
        assert_eq!(refused.kind, types::FaultKind::Invalid, "{name}: {refused}");
        assert!(refused.message.contains(name), "{name}: {refused}");
    }
    assert!(stage.engine.volumes().await.unwrap().is_empty());
    assert!(stage.engine.list(true).await.is_empty());
}

#[tokio::test]
async fn events_are_told_with_a_measure_of_labels_and_of_a_command() {
    let stage = Stage::new().await;
    let labels = json!({"long": "x".repeat(900 << 10), "tier": "front"});
    stage
        .fake
        .add_image("docker.io/library/wordy:latest", json!({"Cmd": ["serve"], "Labels": labels}));
    let mut events = stage.engine.events(None, None);
    let id = stage.running(|config| config.spec.image = "wordy".to_owned()).await;
    let command = vec!["echo".to_owned(), "ä".repeat(1 << 20)];
    let config = ExecConfig { command, ..ExecConfig::default() };
    stage.engine.exec_create(&id, config).await.unwrap();
    for action in ["create", "start", "exec_create: echo ä"] {
        let told = loop {
            let event = soon(events.next()).await.unwrap().unwrap();
            if event.kind == EventKind::Container {
                break event;
            }
        };
        assert!(told.action.starts_with(action) && told.action.len() <= 4 << 10, "{action}");
        assert_eq!(told.attributes["tier"], "front");
        assert!(told.attributes.contains_key("name") && !told.attributes.contains_key("long"));
    }
    // Who asks for the container itself is told all.
    let labels = stage.engine.inspect(&id).await.unwrap().merged.labels;
    assert_eq!(labels["long"].len(), 900 << 10);
}
