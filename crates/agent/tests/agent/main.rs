//! An agent as a manager sees it: a real session over TLS, a real engine and a real data plane over
//! stand-ins for containerd and the kernel.

#![expect(clippy::unwrap_used, reason = "a test fails where it cannot go on")]

mod desk;

use agent::{Agent, Config};
use dataplane::Names;
use dataplane::fake::{Kernel, Namespaces};
use desk::{Desk, Opened, Said};
use discovery::{Endpoint, NetworkDifference, NetworkView, ServiceView};
use engine::fake::Fake;
use engine::{ContainerConfig, Engine, NetworkMode, Runtime, State};
use scope::Scope;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use types::{
    Attachment, ContainerSpec, DesiredState, FaultKind, NodeDescription, PullCredentials, Subnet,
    Task, TaskId, TaskState,
};
use wire::{Assignments, Difference, LogOptions, LogRequest, Release, SessionMessage};

const IMAGE: &str = "docker.io/library/image:latest";
/// Everything here is quick; this is for a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(30);

/// A machine: what outlives a daemon, and the daemon that runs.
struct Machine {
    dir: tempfile::TempDir,
    containers: Fake,
    kernel: Kernel,
    namespaces: Namespaces,
    desk: Desk,
    scope: Scope,
    agent: Option<Agent>,
    engine: Option<Engine>,
}

impl Machine {
    async fn new() -> Self {
        Self::with_certificate(desk::DAY).await
    }

    /// The node's certificate was signed 10 s ago and holds for so long from then on.
    async fn with_certificate(valid_for: Duration) -> Self {
        let mut machine = Self {
            dir: tempfile::tempdir().unwrap(),
            containers: Fake::with_image(IMAGE, serde_json::json!({"Cmd": ["run"]})),
            kernel: Kernel::default(),
            namespaces: Namespaces::default(),
            desk: Desk::open(valid_for).await,
            scope: Scope::new(),
            agent: None,
            engine: None,
        };
        machine.start().await;
        machine
    }

    async fn start(&mut self) {
        let dir = self.dir.path();
        std::fs::write(dir.join("resolv.conf"), "").unwrap();
        let config = dataplane::Config {
            dir: dir.join("dataplane"),
            netns_dir: dir.join("netns"),
            gateway_subnet: "172.30.0.0/16".parse().unwrap(),
        };
        let (kernel, namespaces) = (self.kernel.clone(), self.namespaces.clone());
        let names =
            Names::here(namespaces.clone(), &dir.join("resolv.conf"), &mut self.scope).await;
        let dataplane =
            dataplane::start(config, kernel, namespaces, names, &mut self.scope).await.unwrap();
        let config = engine::Config {
            data: dir.join("engine"),
            run: dir.join("run"),
            cgroup_parent: "/skep-test".to_owned(),
            network: None,
            cdi: Vec::new(),
            resolv_conf: dir.join("resolv.conf"),
            mount_helper: None,
            plugin_folders: Vec::new(),
            init: None,
            apparmor: None,
            log: engine::LogConfig::default(),
            journal: std::path::PathBuf::from("/nowhere"),
        };
        let runtime = Arc::new(self.containers.clone());
        let engine: Engine =
            engine::start(config, runtime, dataplane.clone(), &mut self.scope).await.unwrap();
        let config = Config {
            data: dir.join("agent"),
            identity: Arc::new(self.desk.worker().clone()),
            managers: vec![self.desk.address()],
            address: [192, 168, 0, 1].into(),
            data_path_address: None,
            description: NodeDescription::default(),
        };
        self.engine = Some(engine.clone());
        let agent = Agent::start(config, engine, dataplane, &mut self.scope).await.unwrap();
        self.agent = Some(agent);
    }

    async fn runs(&self, container: &str) -> bool {
        let state = self.containers.state(container.to_owned()).await.unwrap();
        matches!(state, Some(State::Running { .. }))
    }

    fn exists(&self, container: &str) -> bool {
        self.containers.ids().iter().any(|id| id == container)
    }

    /// Ends the daemon; containers run on.
    async fn stop(&mut self) {
        let scope = std::mem::take(&mut self.scope);
        scope.cancel();
        tokio::time::timeout(PATIENCE, scope.join()).await.unwrap().unwrap();
        (self.agent, self.engine) = (None, None);
    }

    /// Makes a container with the labels of a task's.
    async fn make(&self, id: &str, name: &str, task: &str, network: NetworkMode) {
        let labels = [(types::TASK_LABEL.to_owned(), task.to_owned())].into();
        let spec = ContainerSpec { image: "image".into(), labels, ..ContainerSpec::default() };
        let (id, name) = (id.to_owned(), name.to_owned());
        let config = ContainerConfig { id, name, spec, network, ..ContainerConfig::default() };
        self.engine.as_ref().unwrap().create(config).await.unwrap();
    }
}

fn task(id: &str) -> Task {
    let mut task = Task { id: id.into(), service: "s".into(), ..Task::default() };
    task.service_name = "web".into();
    task.slot = 1;
    task.node = Some(desk::NODE.into());
    task.status.state = TaskState::Assigned;
    task.spec.container.image = "image".into();
    task.spec.container.stop_grace_period = Some(Duration::from_secs(1));
    task.attachments = vec![Attachment {
        network: "net".into(),
        addresses: [10, 0, 1, 5].into(),
        aliases: Vec::new(),
    }];
    task
}

/// One task on one network, which it serves there or not.
fn whole(task: &Task, serving: bool) -> Assignments {
    let mut network = NetworkView { name: "net".into(), vni: 4097, ..NetworkView::default() };
    network.subnets = Subnet::new("10.0.1.0/24".parse().unwrap()).into_iter().collect();
    let endpoint = Endpoint {
        addresses: [10, 0, 1, 5].into(),
        node: desk::NODE.into(),
        vtep: [192, 168, 0, 1].into(),
        service: "s".into(),
        name: task.name(),
        aliases: BTreeSet::new(),
        serving,
    };
    network.endpoints.insert(task.id.clone(), endpoint);
    let vips = [10, 0, 1, 2].into();
    network
        .services
        .insert("s".into(), ServiceView { name: "web".into(), vips, ..Default::default() });
    let mut whole = Assignments { version: 1, ..Assignments::default() };
    whole.tasks.insert(task.id.clone(), task.clone());
    whole.knowledge.networks.insert("net".into(), network);
    whole
}

/// Brings a task to life.
async fn running(machine: &mut Machine, opened: &mut Opened, task: &Task) -> String {
    opened.send(SessionMessage::Whole(whole(task, false))).await;
    let status = machine.desk.until_state(&task.id, TaskState::Running).await;
    status.container.unwrap().id
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_that_cannot_be_had_rejects_the_task() {
    let mut machine = Machine::new().await;
    let opened = machine.desk.opened().await;
    let mut wanted = task("t");
    wanted.spec.container.image = "Nope".into();
    opened.send(SessionMessage::Whole(whole(&wanted, false))).await;
    let status = machine.desk.until_state(&"t".into(), TaskState::Rejected).await;
    assert!(status.error.starts_with("No such image: Nope"), "{}", status.error);
    assert_eq!(status.message, "preparing");
    machine.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_is_pulled_with_the_tasks_credentials() {
    let mut machine = Machine::new().await;
    let mut opened = machine.desk.opened().await;
    let mut wanted = task("t");
    wanted.spec.container.image = "registry.example/private".into();
    let (username, password) = ("alice".to_owned(), "secret".to_owned());
    let credentials = PullCredentials { username, password, ..PullCredentials::default() };
    wanted.spec.container.pull_credentials = Some(credentials.clone());
    running(&mut machine, &mut opened, &wanted).await;
    assert_eq!(machine.containers.credentials(), Some(credentials.into()));
    machine.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_is_acknowledged_once_the_kernel_holds_it() {
    let mut machine = Machine::new().await;
    let opened = machine.desk.opened().await;
    opened.send(SessionMessage::Whole(Assignments { version: 1, ..Assignments::default() })).await;
    machine.desk.until(|said| matches!(said, Said::Acknowledged(1))).await;
    let mut change = Difference { from: 1, version: 2, ..Difference::default() };
    change.knowledge.networks.insert("net".into(), NetworkDifference::default());
    opened.send(SessionMessage::Difference(change)).await;
    machine.desk.until(|said| matches!(said, Said::Acknowledged(2))).await;
    machine.desk.until(|said| matches!(said, Said::Heartbeat)).await;
    machine.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_difference_that_does_not_fit_is_answered_with_another_session() {
    let mut machine = Machine::new().await;
    let opened = machine.desk.opened().await;
    opened.send(SessionMessage::Whole(Assignments { version: 1, ..Assignments::default() })).await;
    let change = Difference { from: 7, version: 8, ..Difference::default() };
    opened.send(SessionMessage::Difference(change)).await;
    let again = machine.desk.opened().await;
    again.send(SessionMessage::Whole(Assignments { version: 1, ..Assignments::default() })).await;
    machine.desk.until(|said| matches!(said, Said::Acknowledged(1))).await;
    machine.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_runs_serves_is_withdrawn_and_stops() {
    let mut machine = Machine::new().await;
    let mut opened = machine.desk.opened().await;
    let mut wanted = task("t");
    let container = running(&mut machine, &mut opened, &wanted).await;
    assert!(machine.runs(&container).await);
    assert!(machine.kernel.held().sandboxes.contains_key(&container), "started without network");

    wanted.desired = DesiredState::Shutdown;
    let mut change = Difference { from: 1, version: 2, ..Difference::default() };
    change.tasks.insert("t".into(), wanted.clone());
    opened.send(SessionMessage::Difference(change)).await;
    machine.desk.until(|said| matches!(said, Said::Acknowledged(2))).await;
    assert!(machine.runs(&container).await, "stopped before it was withdrawn");
    let withdrawn = Some([TaskId::from("t")].into());
    let change = Difference { from: 2, version: 3, withdrawn, ..Difference::default() };
    opened.send(SessionMessage::Difference(change)).await;
    machine.desk.until_state(&"t".into(), TaskState::Shutdown).await;
    assert!(!machine.runs(&container).await);
    assert!(machine.exists(&container), "its log is kept as long as the task is");

    let removed_tasks = [TaskId::from("t")].into();
    let change = Difference { from: 3, version: 4, removed_tasks, ..Difference::default() };
    opened.send(SessionMessage::Difference(change)).await;
    let containers = machine.containers.clone();
    machine
        .desk
        .patiently("the container is removed", || !containers.ids().contains(&container))
        .await;
    let kernel = machine.kernel.clone();
    machine.desk.patiently("its network is gone", || kernel.held().sandboxes.is_empty()).await;
    machine.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_ends_is_told_with_its_exit_code() {
    let mut machine = Machine::new().await;
    let mut opened = machine.desk.opened().await;
    let container = running(&mut machine, &mut opened, &task("t")).await;
    machine.containers.end(&container, 3);
    let status = machine.desk.until_state(&"t".into(), TaskState::Failed).await;
    assert_eq!(status.error, "task: non-zero exit (3)");
    assert_eq!(status.container.unwrap().exit_code, 3);
    let kernel = machine.kernel.clone();
    machine.desk.patiently("its network is gone", || kernel.held().sandboxes.is_empty()).await;
    machine.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_ends_is_told_while_the_disk_hangs() {
    let mut machine = Machine::new().await;
    let mut opened = machine.desk.opened().await;
    let container = running(&mut machine, &mut opened, &task("t")).await;
    let disk = journal::fake::hang(&machine.dir.path().join("agent/tasks.redb"));
    machine.containers.end(&container, 3);
    machine.desk.until_state(&"t".into(), TaskState::Failed).await;
    drop(disk);
    machine.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_restart_what_runs_is_kept_and_what_ended_is_told() {
    let mut machine = Machine::new().await;
    let mut opened = machine.desk.opened().await;
    let container = running(&mut machine, &mut opened, &task("t")).await;
    machine.stop().await;
    assert!(machine.runs(&container).await, "the daemon's end ended a container");

    machine.start().await;
    let opened = machine.desk.opened().await;
    let mut known = task("t");
    known.status.state = TaskState::Running;
    opened.send(SessionMessage::Whole(whole(&known, true))).await;
    machine.desk.until(|said| matches!(said, Said::Acknowledged(1))).await;
    assert!(machine.runs(&container).await);

    machine.stop().await;
    machine.containers.end_unseen(&container, 4);
    machine.start().await;
    let opened = machine.desk.opened().await;
    opened.send(SessionMessage::Whole(whole(&known, true))).await;
    let status = machine.desk.until_state(&"t".into(), TaskState::Failed).await;
    assert_eq!(status.error, "task: non-zero exit (4)");
    machine.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_leaves_says_so_before_it_takes_its_tasks_down() {
    let mut machine = Machine::new().await;
    let mut opened = machine.desk.opened().await;
    let container = running(&mut machine, &mut opened, &task("t")).await;
    machine.desk.hear_farewells();
    let agent = machine.agent.clone().unwrap();
    let mut leaving = Box::pin(agent.leave());
    let left = tokio::select! {
        _ = &mut leaving => panic!("it left without a word"),
        said = machine.desk.until(|said| matches!(said, Said::Left)) => said,
    };
    assert!(matches!(left, Said::Left) && machine.runs(&container).await);
    // The manager thinks that nothing is there any more: neither tasks nor networks go for that.
    let mut change = Difference {
        from: 1,
        version: 2,
        removed_tasks: [TaskId::from("t")].into(),
        ..Difference::default()
    };
    change.knowledge.removed_networks.insert("net".into());
    opened.send(SessionMessage::Difference(change)).await;
    drop(opened);
    assert!(machine.runs(&container).await);
    tokio::time::timeout(PATIENCE, leaving).await.unwrap().unwrap();
    assert!(!machine.exists(&container));
    assert!(!machine.desk.has_another(), "a node that leaves came back");
    // Once more is no harm.
    tokio::time::timeout(PATIENCE, agent.leave()).await.unwrap().unwrap();
    machine.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_tasks_of_a_node_that_leaves_go_in_order_before_it() {
    let mut machine = Machine::new().await;
    let mut opened = machine.desk.opened().await;
    let mut wanted = task("t");
    let container = running(&mut machine, &mut opened, &wanted).await;
    machine.desk.hear_notices();
    let agent = machine.agent.clone().unwrap();
    let mut leaving = tokio::task::JoinSet::new();
    leaving.spawn(async move { agent.leave().await });
    machine.desk.until(|said| matches!(said, Said::Leaves)).await;
    // The manager starts anew: it is told again.
    assert!(!opened.leaving);
    drop(opened);
    let opened = machine.desk.opened().await;
    assert!(opened.leaving, "a new session is as if it stayed");
    opened.send(SessionMessage::Whole(whole(&wanted, false))).await;
    // It takes orders, and says what comes of them.
    wanted.desired = DesiredState::Shutdown;
    let mut change = Difference { from: 1, version: 2, ..Difference::default() };
    change.tasks.insert("t".into(), wanted);
    opened.send(SessionMessage::Difference(change)).await;
    machine.desk.until(|said| matches!(said, Said::Acknowledged(2))).await;
    assert!(machine.runs(&container).await, "stopped before it was withdrawn");
    let withdrawn = Some([TaskId::from("t")].into());
    let change = Difference { from: 2, version: 3, withdrawn, ..Difference::default() };
    opened.send(SessionMessage::Difference(change)).await;
    machine.desk.until(|said| matches!(said, Said::Left)).await;
    assert!(!machine.runs(&container).await);
    let left = tokio::time::timeout(PATIENCE, leaving.join_next()).await.unwrap();
    left.unwrap().unwrap().unwrap();
    assert!(!machine.exists(&container));
    machine.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_leaves_also_where_no_manager_hears_it() {
    let mut machine = Machine::new().await;
    let mut opened = machine.desk.opened().await;
    let container = running(&mut machine, &mut opened, &task("t")).await;
    let agent = machine.agent.clone().unwrap();
    let left = tokio::time::timeout(PATIENCE, agent.leave()).await.unwrap();
    assert_eq!(left.unwrap_err().kind, FaultKind::NotImplemented);
    assert!(!machine.exists(&container));
    machine.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logs_are_sent_to_the_manager_that_asks() {
    let mut machine = Machine::new().await;
    let mut opened = machine.desk.opened().await;
    let container = running(&mut machine, &mut opened, &task("t")).await;
    machine.containers.write(&container, "hello\n", false);
    let options = LogOptions { stdout: true, follow: true, ..LogOptions::default() };
    let tasks = [TaskId::from("t")].into();
    let request = LogRequest { subscription: "logs".into(), tasks, options };
    opened.send(SessionMessage::Logs(request)).await;
    let is_line = |said: &Said| match said {
        Said::Log(chunk) => chunk.lines.iter().any(|line| line.text == b"hello\n"),
        Said::Acknowledged(_)
        | Said::Heartbeat
        | Said::Reported(..)
        | Said::Trouble(_)
        | Said::Renews
        | Said::Leaves
        | Said::Left => false,
    };
    machine.desk.until(is_line).await;
    machine.containers.end(&container, 0);
    machine.desk.until(|said| matches!(said, Said::Log(chunk) if chunk.end)).await;
    machine.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logs_that_nobody_reads_do_not_hold_up_heartbeats() {
    let mut machine = Machine::new().await;
    let mut opened = machine.desk.opened().await;
    let container = running(&mut machine, &mut opened, &task("t")).await;
    // More than may be on its way before anybody reads.
    let line = format!("{}\n", "x".repeat(1023));
    for _ in 0..desk::WINDOW / 256 {
        machine.containers.write(&container, &line, false);
    }
    let options = LogOptions { stdout: true, follow: true, ..LogOptions::default() };
    let tasks = BTreeSet::from([TaskId::from("t")]);
    for log in ["one", "two"] {
        let subscription = format!("{}-{log}", desk::UNREAD);
        let (tasks, options) = (tasks.clone(), options.clone());
        let request = LogRequest { subscription, tasks, options };
        opened.send(SessionMessage::Logs(request)).await;
        machine.desk.until(|said| matches!(said, Said::Log(_))).await;
    }
    // The first may have been on its way already.
    for _ in 0..3 {
        machine.desk.until(|said| matches!(said, Said::Heartbeat)).await;
    }
    machine.containers.end(&container, 0);
    machine.desk.until_state(&"t".into(), TaskState::Complete).await;
    assert!(!machine.desk.has_another(), "the session broke");
    machine.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kernel_that_takes_its_time_does_not_hold_up_heartbeats() {
    let mut machine = Machine::new().await;
    let mut opened = machine.desk.opened().await;
    running(&mut machine, &mut opened, &task("t")).await;
    machine.kernel.stall(true);
    // The data plane is busy with the first while the session waits for it with the others.
    for round in 0..8 {
        opened.send(SessionMessage::Whole(whole(&task("t"), round % 2 == 0))).await;
    }
    // The first two may have been on their way already.
    for _ in 0..4 {
        machine.desk.until(|said| matches!(said, Said::Heartbeat)).await;
    }
    machine.kernel.stall(false);
    assert!(!machine.desk.has_another(), "the session broke");
    machine.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tasks_whose_network_cannot_be_made_hold_up_nobody() {
    let mut machine = Machine::new().await;
    let opened = machine.desk.opened().await;
    opened.send(SessionMessage::Whole(Assignments { version: 1, ..Assignments::default() })).await;
    machine.desk.until(|said| matches!(said, Said::Acknowledged(1))).await;
    let alone = |id: String| Task { attachments: Vec::new(), slot: 0, ..task(&id) };
    let tasks = |ids: Vec<String>| ids.into_iter().map(|id| (id.as_str().into(), alone(id)));
    machine.kernel.stall(true);
    let mut change = Difference { from: 1, version: 2, ..Difference::default() };
    change.tasks = tasks((0..12).map(|number| format!("stuck-{number}")).collect()).collect();
    opened.send(SessionMessage::Difference(change)).await;
    let containers = machine.containers.clone();
    machine.desk.patiently("all are made", || containers.ids().len() == 12).await;
    let reason = || "told to fail".to_owned();
    let sandboxes = containers.ids().into_iter().map(|id| (id, reason())).collect();
    machine.kernel.fail_alone(discovery::Outcome { sandboxes, ..discovery::Outcome::default() });
    machine.kernel.stall(false);
    let mut change = Difference { from: 2, version: 3, ..Difference::default() };
    change.tasks = tasks(vec!["healthy".to_owned()]).collect();
    opened.send(SessionMessage::Difference(change)).await;
    let runs = |said: &Said| match said {
        Said::Reported(task, status) => {
            assert!(!status.state.is_terminal(), "{task} has ended before: {}", status.error);
            *task == "healthy".into() && status.state == TaskState::Running
        }
        _ => false,
    };
    machine.desk.until(runs).await;
    machine.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_work_on_the_node_is_told_to_each_manager_and_when_it_works_again() {
    let mut machine = Machine::new().await;
    let whole = || SessionMessage::Whole(Assignments { version: 1, ..Assignments::default() });
    let says =
        |text: &'static str| move |said: &Said| matches!(said, Said::Trouble(it) if it == text);
    let opened = machine.desk.opened().await;
    opened.send(whole()).await;
    machine.desk.until(says("")).await;
    let taken = "port 8080/tcp is in use on this node by nginx (process 7)";
    let ports = [((types::Protocol::Tcp, 8080), taken.to_owned())].into();
    machine.kernel.fail_alone(discovery::Outcome { ports, ..discovery::Outcome::default() });
    machine.kernel.disturb();
    machine.desk.until(says(taken)).await;
    // Another manager, which may never have heard of it.
    drop(opened);
    let opened = machine.desk.opened().await;
    opened.send(whole()).await;
    machine.desk.until(says(taken)).await;
    machine.kernel.fail_alone(discovery::Outcome::default());
    machine.kernel.disturb();
    machine.desk.until(says("")).await;
    machine.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_is_renewed_half_way_though_nothing_else_happens() {
    let mut machine = Machine::with_certificate(Duration::from_secs(14)).await;
    let opened = machine.desk.opened().await;
    // Nothing is said to the node; it has no tasks, and says nothing but that it is there.
    machine.desk.until(|said| matches!(said, Said::Renews)).await;
    drop(opened);
    machine.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_off_past_its_certificates_end_says_what_to_do() {
    let mut machine = Machine::with_certificate(Duration::from_secs(1)).await;
    let mut status = machine.agent.as_ref().unwrap().status();
    let says = status.wait_for(|status| status.error.contains("certificate has expired on 20"));
    let said = tokio::time::timeout(PATIENCE, says).await.expect("it says so").unwrap().clone();
    assert!(said.error.contains("docker swarm leave --force"), "{}", said.error);
    machine.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_says_in_words_that_its_manager_is_of_a_former_release() {
    let mut machine = Machine::new().await;
    // The session that was open ends; the manager that comes next says no release.
    machine.desk.be(Release::default());
    drop(machine.desk.opened().await);
    let mut status = machine.agent.as_ref().unwrap().status();
    let told = status.wait_for(|status| status.error.contains("update the managers first"));
    let told = tokio::time::timeout(PATIENCE, told).await.expect("it says so").unwrap();
    assert!(told.error.contains("skep 0.1.0 with protocol 1"), "{}", told.error);
    assert!(!told.connected);
}

/// Tools make containers "like that one", with all its labels.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_users_container_with_a_tasks_labels_or_name_is_not_the_tasks() {
    let mut machine = Machine::new().await;
    let (copy, namesake, leftover) = ("a".repeat(64), "b".repeat(64), "c".repeat(64));
    let wanted = task("t");
    machine.make(&copy, "copy", "gone", NetworkMode::Bridge).await;
    machine.make(&namesake, &wanted.name(), "t", NetworkMode::Bridge).await;
    machine.make(&leftover, "leftover", "gone", NetworkMode::Attached).await;
    let opened = machine.desk.opened().await;
    opened.send(SessionMessage::Whole(whole(&wanted, false))).await;
    let status = machine.desk.until_state(&wanted.id, TaskState::Rejected).await;
    assert!(status.error.contains("is already in use by container"), "{}", status.error);
    let gone = async {
        while machine.exists(&leftover) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.unwrap();
    assert!(machine.exists(&copy) && machine.exists(&namesake));
    machine.stop().await;
}
