//! Containers' lives on a stand-in for the runtime.

use crate::fake::{Fake, Script};
use crate::*;
use futures_util::StreamExt;
use serde_json::json;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use types::{ContainerSpec, Fault, FaultKind, HealthCheck, Labels, Mount};

const PATIENCE: Duration = Duration::from_secs(20);
const IMAGE: &str = "docker.io/library/web:latest";

/// An engine on a stand-in, that can be started again on the same disk.
struct Stage {
    dir: tempfile::TempDir,
    fake: Fake,
    engine: Engine,
    scope: scope::Scope,
}

impl Stage {
    async fn new() -> Self {
        let config = json!({"Cmd": ["serve"], "Volumes": {"/data": {}}, "StopSignal": "15"});
        let dir = tempfile::tempdir().unwrap();
        let fake = Fake::with_image(IMAGE, config);
        let (engine, scope) = open(dir.path(), &fake).await;
        Self { dir, fake, engine, scope }
    }

    /// What a restart of the daemon does: containers go on.
    async fn restart(self) -> Self {
        self.restart_while(|_| {}).await
    }

    async fn restart_while(self, meanwhile: impl FnOnce(&Fake)) -> Self {
        let Self { dir, fake, engine, scope } = self;
        scope.cancel();
        scope.join().await.unwrap();
        drop(engine);
        meanwhile(&fake);
        let (engine, scope) = open(dir.path(), &fake).await;
        Self { dir, fake, engine, scope }
    }

    async fn created(&self, change: impl FnOnce(&mut ContainerConfig)) -> String {
        self.try_create(change).await.unwrap().id
    }

    async fn try_create(
        &self,
        change: impl FnOnce(&mut ContainerConfig),
    ) -> Result<Created, Fault> {
        let spec = ContainerSpec { image: "web".to_owned(), ..ContainerSpec::default() };
        let mut config = ContainerConfig { spec, ..ContainerConfig::default() };
        config.network = NetworkMode::None;
        change(&mut config);
        self.engine.create(config).await
    }

    async fn running(&self, change: impl FnOnce(&mut ContainerConfig)) -> String {
        let id = self.created(change).await;
        assert!(self.engine.start(&id).await.unwrap());
        id
    }

    async fn ended(&self, id: &str) -> Exit {
        soon(self.engine.wait(id, WaitFor::NotRunning)).await.unwrap()
    }

    async fn log(&self, id: &str) -> String {
        let options = LogOptions { stdout: true, stderr: true, ..LogOptions::default() };
        let entries = soon(self.engine.logs(id, options).unwrap().collect::<Vec<_>>()).await;
        let lines = entries.into_iter().map(|entry| {
            let entry = entry.unwrap();
            let stream = if entry.stderr { "E" } else { "O" };
            format!("{stream} {}", String::from_utf8(entry.bytes.to_vec()).unwrap())
        });
        lines.collect()
    }

    async fn status(&self, id: &str) -> Status {
        self.engine.inspect(id).await.unwrap().state.status
    }
}

async fn open(dir: &Path, fake: &Fake) -> (Engine, scope::Scope) {
    let mut scope = scope::Scope::new();
    let namespaces = dataplane::fake::Namespaces::default();
    let resolv_conf = dir.join("resolv.conf");
    let names = dataplane::Names::here(namespaces.clone(), &resolv_conf, &mut scope).await;
    let dataplane = dataplane::start(
        dataplane::Config {
            dir: dir.join("dataplane"),
            netns_dir: dir.join("netns"),
            gateway_subnet: "172.30.0.0/16".parse().unwrap(),
        },
        dataplane::fake::Kernel::default(),
        namespaces,
        names,
        &mut scope,
    );
    let dataplane = dataplane.await.unwrap();
    let config = Config {
        data: dir.join("engine"),
        run: dir.join("run"),
        cgroup_parent: "/skep".to_owned(),
        resolv_conf,
        init: Some(b"init"),
        apparmor: None,
    };
    let runtime: Arc<dyn Runtime> = Arc::new(fake.clone());
    let engine = start(config, runtime, dataplane, &mut scope).await.unwrap();
    (engine, scope)
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it takes too long")
}

/// Polls until something is so.
async fn eventually(mut so: impl AsyncFnMut() -> bool) {
    soon(async {
        while !so().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

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
    assert_eq!(stage.engine.remove_volume("db").await.unwrap_err().kind, FaultKind::Conflict);
    soon(stage.engine.remove(&id, true, true)).await.unwrap();
    assert!(stage.engine.volume("db").await.is_ok(), "a named volume stays");
    stage.engine.remove_volume("db").await.unwrap();
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
    keep(stage.dir.path().join("run")).unwrap();
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
async fn a_source_that_does_not_answer_holds_up_its_own_containers_only() {
    let stage = Stage::new().await;
    let dead = Path::new("/net/dead");
    let answer = stage.engine.inner.looks.hang(dead);
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
async fn a_container_becomes_healthy_and_unhealthy_and_the_state_tells() {
    let stage = Stage::new().await;
    let script = |code| Script { output: "seen".to_owned(), code, ..Script::default() };
    stage.fake.script("probe", script(0));
    let check = HealthCheck {
        test: vec!["CMD".to_owned(), "probe".to_owned()],
        interval: Duration::from_millis(5),
        ..HealthCheck::default()
    };
    let mut events = stage.engine.events(None);
    let id = stage.running(|config| config.spec.health = Some(check)).await;
    let mut watched = stage.engine.watch(&id).unwrap();
    let status = |state: &ContainerState| state.health.as_ref().map(|health| health.status);
    soon(watched.wait_for(|s| status(s) == Some(HealthStatus::Healthy))).await.unwrap();
    stage.fake.script("probe", script(1));
    soon(watched.wait_for(|s| status(s) == Some(HealthStatus::Unhealthy))).await.unwrap();
    let health = stage.engine.inspect(&id).await.unwrap().state.health.unwrap();
    let last = health.log.last().unwrap();
    assert_eq!((last.exit_code, last.output.as_str()), (1, "seen"));
    for action in ["health_status: healthy", "health_status: unhealthy"] {
        soon(async { while events.next().await.unwrap().action != action {} }).await;
    }
    let stage = stage.restart().await;
    let health = stage.engine.inspect(&id).await.unwrap().state.health.unwrap();
    assert_eq!(health.status, HealthStatus::Unhealthy, "it is remembered");
}

#[tokio::test]
async fn a_probe_that_takes_too_long_is_killed_and_has_failed() {
    let stage = Stage::new().await;
    stage.fake.script("/bin/sh", Script { hangs: true, ..Script::default() });
    let check = HealthCheck {
        test: vec!["CMD-SHELL".to_owned(), "sleep 100".to_owned()],
        interval: Duration::from_millis(1),
        timeout: Duration::from_millis(10),
        retries: 2,
        ..HealthCheck::default()
    };
    let id = stage.running(|config| config.spec.health = Some(check)).await;
    let mut watched = stage.engine.watch(&id).unwrap();
    let probe = soon(watched.wait_for(|state| {
        state.health.as_ref().is_some_and(|health| health.status == HealthStatus::Unhealthy)
    }));
    let probe = probe.await.unwrap().health.clone().unwrap().log[0].clone();
    assert_eq!(
        (probe.exit_code, probe.output.as_str()),
        (-1, "Health check exceeded timeout (10ms)")
    );
}

#[tokio::test]
async fn a_further_process_gives_its_output_and_its_exit_code() {
    let stage = Stage::new().await;
    let id = stage.running(|config| config.name = "web".to_owned()).await;
    let (output, error) = ("out".to_owned(), "err".to_owned());
    stage.fake.script("ls", Script { output, error, code: 4, hangs: false });
    let config = ExecConfig {
        command: vec!["ls".to_owned()],
        stdout: true,
        stderr: true,
        ..ExecConfig::default()
    };
    let exec = stage.engine.exec_create("web", config).await.unwrap();
    let mut attached = stage.engine.exec_start(&exec, false).await.unwrap();
    let mut streams = [Vec::new(), Vec::new()];
    while let Some(chunk) = soon(attached.output.recv()).await {
        streams[usize::from(chunk.stderr)].extend_from_slice(&chunk.bytes);
    }
    assert_eq!(streams, [b"out".to_vec(), b"err".to_vec()]);
    eventually(async || !stage.engine.exec_inspect(&exec).unwrap().running).await;
    let info = stage.engine.exec_inspect(&exec).unwrap();
    assert_eq!((info.exit_code, info.container), (Some(4), id.clone()));
    let again = stage.engine.exec_start(&exec, false).await.unwrap_err();
    assert_eq!(again.kind, FaultKind::Conflict);
    assert_eq!(std::fs::read_dir(stage.dir.path().join("run").join(&id)).unwrap().count(), 2);
}

#[tokio::test]
async fn whoever_is_attached_reads_why_a_further_process_could_not_be_started() {
    let stage = Stage::new().await;
    stage.running(|config| config.name = "web".to_owned()).await;
    stage.fake.set_broken(Some(Fault::invalid("exec: \"no\": executable file not found")));
    let command = vec!["no".to_owned()];
    let config = ExecConfig { command, stdout: true, ..ExecConfig::default() };
    let exec = stage.engine.exec_create("web", config.clone()).await.unwrap();
    let mut attached = stage.engine.exec_start(&exec, false).await.unwrap();
    let reason = soon(attached.output.recv()).await.unwrap().bytes;
    assert_eq!(reason, "exec: \"no\": executable file not found\r\n");
    assert_eq!(soon(attached.output.recv()).await, None);
    assert_eq!(stage.engine.exec_inspect(&exec).unwrap().exit_code, Some(127));
    let unheard = stage.engine.exec_create("web", config).await.unwrap();
    assert!(stage.engine.exec_start(&unheard, true).await.is_err());
}

#[tokio::test]
async fn the_input_of_a_further_process_ends_with_the_clients() {
    let stage = Stage::new().await;
    stage.running(|config| config.name = "web".to_owned()).await;
    stage.fake.script("cat", Script { hangs: true, ..Script::default() });
    let config = ExecConfig {
        command: vec!["cat".to_owned()],
        stdin: true,
        stdout: true,
        ..ExecConfig::default()
    };
    let exec = stage.engine.exec_create("web", config).await.unwrap();
    let mut attached = stage.engine.exec_start(&exec, false).await.unwrap();
    let mut input = attached.input.take().unwrap();
    input.write_all(b"text").await.unwrap();
    drop(input);
    assert_eq!(soon(attached.output.recv()).await, None);
    eventually(async || stage.engine.exec_inspect(&exec).unwrap().exit_code == Some(0)).await;
}

#[tokio::test]
async fn a_client_attached_before_the_start_gets_everything_and_the_end() {
    let stage = Stage::new().await;
    let id = stage
        .created(|config| {
            config.spec.open_stdin = true;
            config.stdin_once = true;
        })
        .await;
    let options =
        AttachOptions { stream: true, stdin: true, stdout: true, stderr: true, logs: false };
    let mut attached = stage.engine.attach(&id, options).await.unwrap();
    stage.engine.start(&id).await.unwrap();
    stage.fake.write(&id, "prompt> ", false);
    let chunk = soon(attached.output.recv()).await.unwrap();
    assert_eq!((chunk.stderr, &chunk.bytes[..]), (false, &b"prompt> "[..]));
    let ended = stage.engine.wait(&id, WaitFor::NextExit);
    drop(attached.input.take());
    assert_eq!(soon(ended).await.unwrap().code, 0);
    assert_eq!(soon(attached.output.recv()).await, None);
}

#[tokio::test]
async fn a_terminals_input_stays_open_when_its_first_client_goes() {
    let stage = Stage::new().await;
    let id = stage
        .running(|config| {
            (config.spec.open_stdin, config.spec.tty, config.stdin_once) = (true, true, true);
        })
        .await;
    let options =
        AttachOptions { stream: true, stdin: true, stdout: true, stderr: true, logs: false };
    let mut input = stage.engine.attach(&id, options).await.unwrap().input.unwrap();
    input.shutdown().await.unwrap();
    // The other end is dropped after all that follows the end of the input.
    assert_eq!(soon(input.read(&mut [0])).await.unwrap(), 0);
    let seen = stage.fake.state(id).await.unwrap();
    assert!(matches!(seen, Some(State::Running { .. })), "{seen:?}");
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
    let driver = |config: &mut ContainerConfig| config.log.driver = "syslog".to_owned();
    assert!(fault(&driver).await.contains("the log driver \"syslog\""));
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
    let days = |days: u64| clock::now().after(Duration::from_hours(days * 24));
    stage.engine.remove_spares(days(0), false).await;
    let stage = stage.restart().await;
    let here = async |name: &str| stage.engine.image(name).await.is_ok();
    assert!(here("unused:1").await, "not yet");
    stage.engine.remove_spares(days(6), false).await;
    assert!(here("unused:1").await, "not yet");
    stage.engine.remove_spares(days(8), false).await;
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
    stage.engine.remove_spares(days(0), false).await;
    stage.engine.tag("named:1", "mine:1").await.unwrap();
    soon(stage.engine.pull("pulled:1", None).unwrap().collect::<Vec<_>>()).await;
    let stage = stage.restart().await;
    stage.engine.remove_spares(days(8), false).await;
    for name in ["named:1", "pulled:1"] {
        assert!(stage.engine.image(name).await.is_ok(), "{name}");
    }
}

#[tokio::test]
async fn an_image_that_could_not_be_removed_is_removed_later() {
    let stage = Stage::new().await;
    stage.fake.publish("docker.io/library/unused:1", 1, json!({"Cmd": ["serve"]}));
    stage.engine.ensure_image("unused:1", None).await.unwrap();
    let later = clock::now().after(Duration::from_hours(8 * 24));
    stage.fake.set_away(true);
    stage.engine.remove_spares(later, false).await;
    stage.fake.set_away(false);
    let stage = stage.restart().await;
    assert!(stage.engine.image("unused:1").await.is_ok());
    stage.engine.remove_spares(later, false).await;
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
async fn a_reader_follows_a_log_until_the_container_ends() {
    let stage = Stage::new().await;
    let options = Labels::from([("max-size".to_owned(), "1k".to_owned())]);
    let id = stage.running(|config| config.log.options = options).await;
    let follow = LogOptions { follow: true, stdout: true, ..LogOptions::default() };
    let lines = stage.engine.logs(&id, follow).unwrap();
    let mut lines = lines.map(|entry| String::from_utf8(entry.unwrap().bytes.to_vec()).unwrap());
    for number in 0..100 {
        stage.fake.write(&id, &format!("{number}\n"), false);
        assert_eq!(soon(lines.next()).await.unwrap(), format!("{number}\n"));
    }
    stage.fake.end(&id, 0);
    assert_eq!(soon(lines.next()).await, None);
}

/// Fills what waits for a client that does not read, and writes a little more.
async fn overfill(stage: &Stage, id: &str, attached: &Attached) -> String {
    let mut written = String::new();
    for number in 0..exec::CHUNKS + 3 {
        let line = format!("line {number}\n");
        stage.fake.write(id, &line, false);
        written.push_str(&line);
        let waiting = (number + 1).min(exec::CHUNKS);
        eventually(async || attached.output.len() == waiting).await;
    }
    written
}

/// Reads what a client gets until it has this many bytes.
async fn read(attached: &mut Attached, count: usize) -> String {
    let mut text = Vec::new();
    while text.len() < count
        && let Some(chunk) = soon(attached.output.recv()).await
    {
        text.extend_from_slice(&chunk.bytes);
    }
    String::from_utf8(text).unwrap()
}

const READS: AttachOptions =
    AttachOptions { stream: true, stdin: false, stdout: true, stderr: true, logs: false };

#[tokio::test]
async fn a_client_from_the_start_on_that_does_not_read_is_waited_for() {
    let stage = Stage::new().await;
    let id = stage.created(|_| {}).await;
    let mut attached = stage.engine.attach(&id, READS).await.unwrap();
    stage.engine.start(&id).await.unwrap();
    let written = overfill(&stage, &id, &attached).await;
    // For longer than a client that came later is waited for.
    tokio::time::sleep(2 * taps::PATIENCE).await;
    assert_eq!(read(&mut attached, written.len()).await, written);
    stage.fake.write(&id, "more\n", false);
    assert_eq!(read(&mut attached, 5).await, "more\n");
    assert_eq!(stage.log(&id).await.replace("O ", ""), written + "more\n");
}

#[tokio::test]
async fn a_client_that_does_not_read_holds_no_end_up_and_gets_the_rest() {
    let stage = Stage::new().await;
    let id = stage.created(|_| {}).await;
    let mut attached = stage.engine.attach(&id, READS).await.unwrap();
    stage.engine.start(&id).await.unwrap();
    let written = overfill(&stage, &id, &attached).await;
    stage.fake.end(&id, 0);
    stage.ended(&id).await;
    assert_eq!(stage.log(&id).await.replace("O ", ""), written);
    assert_eq!(read(&mut attached, usize::MAX).await, written);
}

#[tokio::test]
async fn a_client_that_came_later_and_does_not_read_is_told_what_it_missed() {
    let stage = Stage::new().await;
    let id = stage.running(|_| {}).await;
    let mut attached = stage.engine.attach(&id, READS).await.unwrap();
    let mut written = overfill(&stage, &id, &attached).await;
    // It holds nobody up for long: the log gets every line. A line in the log says that what came
    // before it was given up.
    for line in ["", "one more\n"] {
        stage.fake.write(&id, line, false);
        written.push_str(line);
        eventually(async || stage.log(&id).await.replace("O ", "") == written).await;
    }
    let first = written.find("line 64").unwrap();
    assert_eq!(read(&mut attached, first).await, written[..first]);
    stage.fake.write(&id, "the last\n", false);
    written.push_str("the last\n");
    let mut text = String::new();
    while !text.ends_with("the last\n") {
        text.push_str(&read(&mut attached, 1).await);
    }
    let said = " bytes were left out here: this client did not read them]\r\n";
    let (missed, rest) = text.strip_prefix('[').unwrap().split_once(said).unwrap();
    let missed: usize = missed.parse().unwrap();
    assert_eq!(written[first + missed..], *rest);
}

#[tokio::test]
async fn the_input_of_a_further_terminal_stays_open_when_its_client_goes() {
    let stage = Stage::new().await;
    stage.running(|config| config.name = "web".to_owned()).await;
    stage.fake.script("sh", Script { hangs: true, ..Script::default() });
    let command = vec!["sh".to_owned()];
    let config =
        ExecConfig { command, stdin: true, stdout: true, tty: true, ..ExecConfig::default() };
    let exec = stage.engine.exec_create("web", config).await.unwrap();
    let mut input = stage.engine.exec_start(&exec, false).await.unwrap().input.unwrap();
    input.shutdown().await.unwrap();
    // The other end is dropped when nothing follows the end of the input any more.
    assert_eq!(soon(input.read(&mut [0])).await.unwrap(), 0);
    assert!(stage.engine.exec_inspect(&exec).unwrap().running);
}
