//! What an engine finds that starts again, and one whose runtime was away.

use super::{Stage, eventually};
use crate::fake::Fake;
use crate::*;
use serde_json::json;
use types::Fault;

#[tokio::test]
async fn an_engine_that_starts_again_takes_over_what_runs() {
    let stage = Stage::new().await;
    let id = stage.running(|config| config.name = "web".to_owned()).await;
    stage.fake.write(&id, "before\n", false);
    eventually(async || stage.log(&id).await.contains("before")).await;
    let stage = stage.restart().await;
    assert_eq!(stage.status("web").await, Status::Running);
    stage.fake.write(&id, "after\n", false);
    stage.fake.end(&id, 0);
    stage.ended(&id).await;
    assert_eq!(stage.log(&id).await, "O before\nO after\n");
}

#[tokio::test]
async fn what_is_written_while_no_engine_runs_is_in_the_log() {
    let stage = Stage::new().await;
    let (ended, runs) = (stage.running(|_| {}).await, stage.running(|_| {}).await);
    std::thread::spawn(stand_in(stage.dir.path().join("run")).unwrap());
    stage.fake.write(&ended, "first\n", false);
    eventually(async || stage.log(&ended).await.contains("first")).await;
    let (one, two) = (ended.clone(), runs.clone());
    let stage = stage
        .restart_while(|fake| {
            fake.write(&one, "last words\n", true);
            fake.end_unseen(&one, 1);
            // More than the FIFO takes: somebody reads.
            fake.write(&two, &"line\n".repeat(300_000), false);
        })
        .await;
    stage.ended(&ended).await;
    assert_eq!(stage.log(&ended).await, "O first\nE last words\n");
    stage.fake.write(&runs, "later\n", false);
    stage.fake.end(&runs, 0);
    stage.ended(&runs).await;
    let log = stage.log(&runs).await;
    assert!(log.ends_with("O line\nO later\n"), "{}", &log[log.len() - 20..]);
}

/// As it is where the engine was killed between starting a container and writing that down.
fn forget_start(stage: &Stage, id: &str) {
    let record = stage.dir.path().join("engine/containers").join(id).join("record.json");
    let mut text: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&record).unwrap()).unwrap();
    text["state"]["status"] = json!(Status::Created);
    std::fs::write(&record, text.to_string()).unwrap();
}

#[tokio::test]
async fn a_container_whose_start_was_not_written_down_keeps_its_streams_until_it_is_known() {
    // The runtime cannot tell how it is, or leaves it out of its list.
    let moods: [fn(&Fake, bool); 2] = [Fake::set_puzzled, Fake::set_forgetful];
    for mood in moods {
        let stage = Stage::new().await;
        let id = stage.running(|_| {}).await;
        forget_start(&stage, &id);
        let stage = stage.restart_while(|fake| mood(fake, true)).await;
        let run = stage.dir.path().join("run").join(&id);
        assert!(run.join("stdout").exists());
        mood(&stage.fake, false);
        eventually(async || stage.status(&id).await == Status::Running).await;
        assert!(
            run.join("stdout").exists(),
            "a process that is started in it has its streams there"
        );
        stage.fake.write(&id, "still here\n", false);
        stage.fake.end(&id, 0);
        stage.ended(&id).await;
        assert_eq!(stage.log(&id).await, "O still here\n");
        eventually(async || !run.exists()).await;
    }
}

#[tokio::test]
async fn a_start_that_came_to_nothing_leaves_nothing_in_the_run_directory() {
    let stage = Stage::new().await;
    let id = stage.created(|_| {}).await;
    let run = stage.dir.path().join("run").join(&id);
    let stage = stage
        .restart_while(|_| {
            std::fs::create_dir_all(&run).unwrap();
            std::fs::write(run.join("stdout"), "").unwrap();
        })
        .await;
    eventually(async || !run.exists()).await;
    assert_eq!(stage.status(&id).await, Status::Created);
    assert!(stage.engine.start(&id).await.unwrap());
}

#[tokio::test]
async fn what_is_as_its_record_says_is_taken_over_without_a_write() {
    use std::os::unix::fs::MetadataExt;
    let stage = Stage::new().await;
    let (same, other) = (stage.running(|_| {}).await, stage.running(|_| {}).await);
    let folders = stage.dir.path().join("engine/containers");
    // A record is replaced by another file.
    let record = |id: &str| folders.join(id).join("record.json");
    let file = |id: &str| std::fs::metadata(record(id)).unwrap().ino();
    let text = std::fs::read_to_string(record(&other)).unwrap();
    let mut value: serde_json::Value = serde_json::from_str(&text).unwrap();
    value["state"]["pid"] = json!(1);
    std::fs::write(record(&other), value.to_string()).unwrap();
    let before = [file(&same), file(&other)];
    let stage = stage.restart().await;
    assert_eq!(file(&same), before[0]);
    assert_ne!(file(&other), before[1], "its process has another id");
    assert_ne!(stage.engine.inspect(&other).await.unwrap().state.pid, 1);
}

#[tokio::test]
async fn what_ended_while_no_engine_ran_is_noted() {
    let stage = Stage::new().await;
    let (known, lost) = (stage.running(|_| {}).await, stage.running(|_| {}).await);
    let (ended, gone) = (known.clone(), lost.clone());
    let stage = stage
        .restart_while(|fake| {
            fake.end_unseen(&ended, 7);
            drop(fake.delete(gone));
        })
        .await;
    assert_eq!(stage.ended(&known).await.code, 7);
    assert_eq!(stage.ended(&lost).await.code, 255, "nobody knows how it ended");
}

#[tokio::test]
async fn a_run_whose_begin_nobody_knows_is_not_told_to_have_lasted_since_1970() {
    let stage = Stage::new().await;
    let id = stage.running(|_| {}).await;
    forget_start(&stage, &id);
    let stage = stage.restart_while(|fake| fake.end_unseen(&id, 7)).await;
    let mut events = stage.engine.events(Some(stage.engine.events_whole_after()), None);
    let die = super::soon(async {
        loop {
            let event = futures_util::StreamExt::next(&mut events).await.unwrap().unwrap();
            if event.action == "die" {
                return event;
            }
        }
    });
    assert_eq!(die.await.attributes["execDuration"], "0");
}

#[tokio::test]
async fn containers_without_a_record_are_removed_and_records_outlive_a_reboot() {
    let stage = Stage::new().await;
    let id = stage.running(|_| {}).await;
    let run = stage.dir.path().join("run");
    let stage = stage
        .restart_while(|fake| {
            drop(fake.prepare("stranger".to_owned(), String::new()));
            drop(fake.delete(id.clone()));
            std::fs::remove_dir_all(&run).unwrap();
        })
        .await;
    assert!(stage.fake.ids().is_empty());
    assert_eq!(stage.ended(&id).await.code, 255);
    assert!(stage.engine.start(&id).await.unwrap());
}

#[tokio::test]
async fn a_container_whose_record_is_damaged_goes_on() {
    let stage = Stage::new().await;
    let id = stage.running(|_| {}).await;
    let record = stage.dir.path().join("engine/containers").join(&id).join("record.json");
    let whole = std::fs::read(&record).unwrap();
    std::fs::write(&record, "{").unwrap();
    let stage = stage.restart().await;
    assert!(stage.engine.list(true).await.is_empty());
    assert_eq!(stage.fake.ids(), [id.as_str()]);
    std::fs::write(&record, whole).unwrap();
    let stage = stage.restart().await;
    stage.fake.write(&id, "still here\n", false);
    stage.fake.end(&id, 0);
    stage.ended(&id).await;
    assert_eq!(stage.log(&id).await, "O still here\n");
}

#[tokio::test]
async fn a_container_that_removes_itself_and_had_ended_is_removed_after_a_restart() {
    let stage = Stage::new().await;
    let id = stage.created(|config| config.auto_remove = true).await;
    let record = stage.dir.path().join("engine/containers").join(&id).join("record.json");
    let stage = stage
        .restart_while(|_| {
            let text = std::fs::read_to_string(&record).unwrap();
            let mut text: serde_json::Value = serde_json::from_str(&text).unwrap();
            text["state"]["status"] = json!(Status::Exited);
            std::fs::write(&record, text.to_string()).unwrap();
        })
        .await;
    eventually(async || stage.engine.list(true).await.is_empty()).await;
    assert!(stage.fake.ids().is_empty());
}

#[tokio::test]
async fn ends_of_others_that_are_called_like_a_container_of_ours_are_not_its_own() {
    let stage = Stage::new().await;
    stage.running(|config| config.name = "web".to_owned()).await;
    let exit = Exit { code: 1, at: clock::now() };
    stage.fake.tell(&Happening::Ended { id: "web".to_owned(), exit });
    let other = stage.running(|_| {}).await;
    stage.fake.end(&other, 0);
    stage.ended(&other).await;
    assert_eq!(stage.status("web").await, Status::Running);
}

#[tokio::test]
async fn ends_are_found_after_the_runtime_was_away() {
    let stage = Stage::new().await;
    let id = stage.running(|_| {}).await;
    stage.fake.set_away(true);
    stage.fake.end_unseen(&id, 5);
    stage.fake.tell(&Happening::Resubscribed);
    stage.fake.set_away(false);
    assert_eq!(stage.ended(&id).await.code, 5);
}

#[tokio::test]
async fn what_ends_while_the_runtime_is_away_does_not_stay_running() {
    let stage = Stage::new().await;
    let gone = stage.running(|_| {}).await;
    stage.fake.set_pid(std::process::id());
    let lives = stage.running(|_| {}).await;
    stage.fake.set_away(true);
    stage.fake.tell(&Happening::Lost);
    assert_eq!(stage.ended(&gone).await.code, 255);
    let error = stage.engine.inspect(&gone).await.unwrap().state.error;
    assert!(error.contains("while the container runtime was away"), "{error}");
    assert_eq!(stage.status(&lives).await, Status::Running);
    stage.fake.set_away(false);
    stage.fake.tell(&Happening::Resubscribed);
    stage.fake.end(&lives, 4);
    assert_eq!(stage.ended(&lives).await.code, 4);
    assert!(stage.engine.start(&gone).await.unwrap());
}

#[tokio::test]
async fn a_runtime_that_cannot_tell_how_a_container_is_has_not_said_that_it_ended() {
    let stage = Stage::new().await;
    let (runs, ends) = (stage.running(|_| {}).await, stage.running(|_| {}).await);
    stage.fake.set_puzzled(true);
    stage.fake.tell(&Happening::Resubscribed);
    let stage = stage.restart_while(|fake| fake.end_unseen(&ends, 3)).await;
    assert_eq!(stage.status(&runs).await, Status::Running);
    assert_eq!(stage.status(&ends).await, Status::Running, "nobody has said otherwise");
    stage.fake.set_puzzled(false);
    assert_eq!(stage.ended(&ends).await.code, 3);
    assert_eq!(stage.status(&runs).await, Status::Running);
    stage.fake.write(&runs, "still here\n", false);
    stage.fake.end(&runs, 0);
    stage.ended(&runs).await;
    assert_eq!(stage.log(&runs).await, "O still here\n");
}

#[tokio::test]
async fn a_container_that_the_list_leaves_out_is_asked_for() {
    let stage = Stage::new().await;
    let id = stage.running(|_| {}).await;
    let stage = stage.restart_while(|fake| fake.set_forgetful(true)).await;
    let container = stage.engine.registry().of_id(&id).unwrap();
    eventually(async || container.live().pump.is_some()).await;
    stage.fake.write(&id, "still here\n", false);
    eventually(async || stage.log(&id).await.contains("still here")).await;
    assert_eq!(stage.status(&id).await, Status::Running);
}

#[tokio::test]
async fn a_runtime_that_fails_to_look_has_not_said_that_a_container_ended() {
    let stage = Stage::new().await;
    let id = stage.running(|_| {}).await;
    stage.fake.set_forgetful(true);
    stage.fake.answer_with(vec![Fault::internal("cannot look"); 2]);
    stage.fake.tell(&Happening::Resubscribed);
    eventually(async || stage.fake.unanswered() == 0).await;
    stage.fake.set_forgetful(false);
    assert_eq!(stage.status(&id).await, Status::Running);
    stage.fake.end(&id, 3);
    assert_eq!(stage.ended(&id).await.code, 3);
}

#[tokio::test]
async fn what_was_connected_and_not_started_is_disconnected() {
    let stage = Stage::new().await;
    let id = stage.created(|config| config.network = NetworkMode::Bridge).await;
    let wanted = dataplane::Wanted::default();
    stage.engine.inner.dataplane.attach(&id, wanted).await.unwrap();
    let stage = stage.restart().await;
    assert!(stage.engine.inner.dataplane.sandboxes().await.unwrap().is_empty());
}
