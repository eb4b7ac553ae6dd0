//! Containers' lives on a stand-in for the runtime. Here are their health and their streams:
//! attached clients, further processes, logs.

mod disk;
mod files;
mod images;
mod joined;
mod lives;
mod plugins;
mod takeover;

use crate::fake::{Fake, Script};
use crate::*;
use futures_util::StreamExt;
use serde_json::json;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use types::{ContainerSpec, Fault, FaultKind, HealthCheck, Labels};

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
        network: None,
        cdi: vec![dir.join("cdi")],
        resolv_conf,
        init: Some(b"init"),
        mount_helper: None,
        plugin_folders: vec![dir.join("plugins")],
        apparmor: None,
        log: LogConfig::default(),
        journal: dir.join("journal"),
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
async fn a_container_becomes_healthy_and_unhealthy_and_the_state_tells() {
    let stage = Stage::new().await;
    let script = |code| Script { output: "seen".to_owned(), code, ..Script::default() };
    stage.fake.script("probe", script(0));
    let check = HealthCheck {
        test: vec!["CMD".to_owned(), "probe".to_owned()],
        interval: Duration::from_millis(5),
        ..HealthCheck::default()
    };
    let mut events = stage.engine.events(None, None);
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
        soon(async { while events.next().await.unwrap().unwrap().action != action {} }).await;
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
async fn a_further_process_that_could_not_be_started_has_an_exit_code() {
    let stage = Stage::new().await;
    stage.running(|config| config.name = "web".to_owned()).await;
    let fault = Fault::invalid("exec: \"no\": executable file not found");
    stage.fake.set_broken(Some(fault.clone()));
    let command = vec!["no".to_owned()];
    let config = ExecConfig { command, stdout: true, ..ExecConfig::default() };
    for detach in [false, true] {
        let exec = stage.engine.exec_create("web", config.clone()).await.unwrap();
        assert_eq!(stage.engine.exec_start(&exec, detach).await.unwrap_err(), fault);
        assert_eq!(stage.engine.exec_inspect(&exec).unwrap().exit_code, Some(127));
        assert_eq!(stage.engine.exec_ready(&exec).unwrap_err().kind, FaultKind::Conflict);
    }
}

#[tokio::test]
async fn the_size_of_a_terminal_waits_for_its_process() {
    let stage = Stage::new().await;
    stage.running(|config| config.name = "web".to_owned()).await;
    stage.fake.script("sh", Script { hangs: true, ..Script::default() });
    let command = vec!["sh".to_owned()];
    let config = ExecConfig { command, tty: true, stdout: true, ..ExecConfig::default() };
    let exec = stage.engine.exec_create("web", config).await.unwrap();
    let resizing = stage.engine.exec_resize(&exec, Size::default());
    let starting = stage.engine.exec_start(&exec, false);
    let (resized, started) = soon(async { tokio::join!(resizing, starting) }).await;
    resized.unwrap();
    drop(started.unwrap());
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
