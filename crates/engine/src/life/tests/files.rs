//! Secrets and configs of containers.

use super::*;
use crate::MemoryFile;
use types::FileReference;

fn with_secret(config: &mut ContainerConfig) {
    let reference = FileReference { name: "key".into(), ..FileReference::default() };
    config.spec.secrets = vec![reference];
}

fn key() -> Vec<MemoryFile> {
    let (target, data) = ("/run/secrets/key".into(), b"sesame".to_vec().into());
    vec![MemoryFile { target, uid: 7, gid: 8, mode: 0o400, data }]
}

/// Where the container finds it on the node.
fn source(stage: &Stage, id: &str) -> std::path::PathBuf {
    let spec = stage.fake.spec(id).unwrap();
    let mounts = spec["mounts"].as_array().unwrap();
    let found = mounts.iter().find(|mount| mount["destination"] == "/run/secrets/key").unwrap();
    let options = ["bind", "rprivate", "ro", "nosuid", "nodev", "noexec"];
    assert_eq!(found["options"], json!(options));
    found["source"].as_str().unwrap().into()
}

#[tokio::test]
async fn files_are_there_from_the_start_of_a_container_to_its_end_and_outlive_the_daemon() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let stage = Stage::new().await;
    let id = stage.created(with_secret).await;
    assert!(stage.engine.start_with(&id, key()).await.unwrap());
    let file = source(&stage, &id);
    assert_eq!(std::fs::read(&file).unwrap(), b"sesame");
    let stage = stage.restart().await;
    assert_eq!(std::fs::read(&file).unwrap(), b"sesame");
    stage.fake.end(&id, 0);
    stage.ended(&id).await;
    assert!(!file.exists());
    assert!(!stage.dir.path().join("run").join(&id).exists());
    // Nothing of it is in what the engine has written down.
    let record = stage.dir.path().join("engine/containers").join(&id).join("record.json");
    assert!(!std::fs::read_to_string(record).unwrap().contains("sesame"));
}

#[tokio::test]
async fn files_of_a_container_that_ended_while_nobody_looked_are_taken_away() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let stage = Stage::new().await;
    let id = stage.created(with_secret).await;
    stage.engine.start_with(&id, key()).await.unwrap();
    let file = source(&stage, &id);
    let stage = stage.restart_while(|fake| fake.end_unseen(&id, 0)).await;
    stage.ended(&id).await;
    assert!(!file.exists());
}

#[tokio::test]
async fn a_container_is_not_started_without_its_files() {
    let stage = Stage::new().await;
    let id = stage.created(with_secret).await;
    let refused = stage.engine.start(&id).await.unwrap_err();
    assert_eq!(refused.kind, FaultKind::Conflict);
    assert!(refused.message.contains("secrets and configs"), "{refused}");
    assert_eq!(stage.status(&id).await, Status::Created);
}
