//! Volumes, binds, and what is kept of containers.

use super::{Stage, eventually, soon};
use crate::*;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use types::{Fault, FaultKind, Mount};

#[tokio::test]
async fn volumes_are_filled_from_the_image_and_stay_while_they_are_used() {
    let stage = Stage::new().await;
    let mount = Mount { source: "db".to_owned(), target: "/data".to_owned(), ..Mount::default() };
    let id = stage.running(|config| config.spec.mounts = vec![mount]).await;
    let volume = stage.engine.volume("db").await.unwrap();
    assert!(volume.path.join("first").exists());
    let spec = stage.fake.spec(&id).unwrap();
    let mounts = spec["mounts"].as_array().unwrap();
    let source = volume.path.to_str().unwrap();
    assert!(
        mounts.iter().any(|mount| mount["source"] == source && mount["destination"] == "/data")
    );
    assert_eq!(
        stage.engine.remove_volume("db", false).await.unwrap_err().kind,
        FaultKind::Conflict
    );
    soon(stage.engine.remove(&id, true, true)).await.unwrap();
    assert!(stage.engine.volume("db").await.is_ok(), "a named volume stays");
    stage.engine.remove_volume("db", false).await.unwrap();
}

fn volume(name: &str) -> VolumeOrder {
    VolumeOrder { name: name.to_owned(), ..VolumeOrder::default() }
}

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "what is being made is looked at meanwhile")]
async fn volumes_of_a_container_that_is_being_made_cannot_be_removed() {
    let stage = Stage::new().await;
    stage.engine.create_volume(volume("db")).await.unwrap();
    stage.fake.set_slow(true);
    let mount = Mount { source: "db".to_owned(), target: "/db".to_owned(), ..Mount::default() };
    let spec = types::ContainerSpec {
        image: "web".to_owned(),
        mounts: vec![mount],
        ..types::ContainerSpec::default()
    };
    let id = Engine::draw_id();
    let config = ContainerConfig { id: id.clone(), spec, ..ContainerConfig::default() };
    let engine = stage.engine.clone();
    let making = tokio::spawn(async move { engine.create(config).await });
    // The image's own comes after the user's.
    eventually(async || stage.engine.volumes().await.unwrap().len() == 2).await;
    eventually(async || stage.dir.path().join("engine/containers").join(&id).exists()).await;
    for volume in stage.engine.volumes().await.unwrap() {
        let refused = stage.engine.remove_volume(&volume.name, false).await.unwrap_err();
        let words = format!("remove {}: volume is in use - [{id}]", volume.name);
        assert_eq!(refused, Fault::conflict(words));
    }
    stage.fake.set_slow(false);
    soon(making).await.unwrap().unwrap();
    assert_eq!(
        stage.engine.remove_volume("db", false).await.unwrap_err().kind,
        FaultKind::Conflict
    );
    assert!(stage.engine.start(&id).await.unwrap());
    soon(stage.engine.remove(&id, true, true)).await.unwrap();
    stage.engine.remove_volume("db", false).await.unwrap();
    assert!(stage.engine.volumes().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_container_that_cannot_be_made_leaves_its_volumes_to_be_removed() {
    let stage = Stage::new().await;
    stage.engine.create_volume(volume("db")).await.unwrap();
    stage.fake.set_broken(Some(Fault::internal("no")));
    let mount = Mount { source: "db".to_owned(), target: "/db".to_owned(), ..Mount::default() };
    let made = stage.try_create(|config| config.spec.mounts = vec![mount]).await;
    made.unwrap_err();
    let left = stage.engine.volumes().await.unwrap();
    assert_eq!(left.iter().map(|volume| volume.name.as_str()).collect::<Vec<_>>(), ["db"]);
    stage.engine.remove_volume("db", false).await.unwrap();
}

#[tokio::test]
async fn a_bind_of_what_is_not_there_is_refused_in_dockers_words() {
    let stage = Stage::new().await;
    let source = stage.dir.path().join("host").display().to_string();
    let mount = Mount {
        kind: types::MountKind::Bind,
        source: source.clone(),
        target: "/data".to_owned(),
        ..Mount::default()
    };
    let bind = |config: &mut ContainerConfig| config.spec.mounts = vec![mount.clone()];
    let refused = format!(
        "invalid mount config for type \"bind\": bind source path does not exist: {source}"
    );
    assert_eq!(stage.try_create(bind).await.unwrap_err(), Fault::invalid(refused.clone()));
    std::fs::create_dir(&source).unwrap();
    let id = stage.created(bind).await;
    std::fs::remove_dir(&source).unwrap();
    assert_eq!(stage.engine.start(&id).await.unwrap_err(), Fault::invalid(refused));
    std::fs::create_dir(&source).unwrap();
    assert!(stage.engine.start(&id).await.unwrap());
}

#[tokio::test]
async fn what_is_kept_of_containers_is_roots_alone_except_what_they_read() {
    let stage = Stage::new().await;
    let id = stage.running(|_| {}).await;
    stage.fake.write(&id, "text\n", false);
    eventually(async || stage.log(&id).await.contains("text")).await;
    let engine = stage.dir.path().join("engine");
    let containers = engine.join("containers");
    let folder = containers.join(&id);
    let log = folder.join(format!("{id}-json.log"));
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    let open = Permissions::from_mode(0o755);
    for private in [&containers, &folder, &engine.join("volumes"), &engine.join("mounts")] {
        assert_eq!(mode(private), 0o700, "{}", private.display());
        std::fs::set_permissions(private, open.clone()).unwrap();
    }
    for private in [log, folder.join("record.json")] {
        assert_eq!(mode(&private), 0o600, "{}", private.display());
    }
    for read in ["hosts", "hostname", "resolv.conf"] {
        assert_eq!(mode(&folder.join(read)), 0o644, "{read}");
    }
    let stage = stage.restart().await;
    for private in [&containers, &folder, &engine.join("volumes"), &engine.join("mounts")] {
        assert_eq!(mode(private), 0o700, "{}", private.display());
    }
    drop(stage);
}

#[tokio::test]
async fn a_source_that_does_not_answer_holds_up_its_own_containers_only() {
    let stage = Stage::new().await;
    let dead = Path::new("/net/dead");
    let answer = stage.engine.inner.path_checks.hang(dead);
    let bound = (0..12).map(|_| {
        stage.try_create(|config| {
            let kind = types::MountKind::Bind;
            let (source, target) = (dead.display().to_string(), "/data".to_owned());
            config.spec.mounts = vec![Mount { kind, source, target, ..Mount::default() }];
        })
    });
    let mut bound = Box::pin(futures_util::future::join_all(bound));
    tokio::select! {
        biased;
        _ = &mut bound => panic!("nobody has answered yet"),
        _ = stage.running(|_| {}) => {}
    }
    answer.send(true).unwrap();
    for made in bound.await {
        made.unwrap();
    }
}

#[tokio::test]
async fn a_container_that_is_not_made_leaves_no_volume() {
    let stage = Stage::new().await;
    stage.fake.set_broken(Some(Fault::unavailable("no space left")));
    let fault = stage.try_create(|_| {}).await.unwrap_err();
    assert_eq!(fault.message, "no space left");
    assert!(stage.engine.volumes().await.unwrap().is_empty());
}
