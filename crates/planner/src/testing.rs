//! Cases as text. `check` is the only place in the tests that knows the planner's interface.
//!
//! A line makes an object; the time is 100 s. Ids are names, a task's is `service-slot-count`.
//!
//! ```text
//! cluster pools=10.9.0.0/16
//! node n1 drain zone=a memory=100
//! network front subnet=10.0.1.0/24,fd00:1::/64 vni=4097
//! service web replicas=2 networks=front ports=8080:80 image=two
//! task web.1 running n1 image=one desired=shutdown since=90
//! ```

mod render;

use crate::{Plan, Planner};
use expect_test::Expect;
use render::render;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;
use store::{Change, Object, Tx, View, rules};
use types::{
    Addresses, Attachment, Availability, Cluster, ContainerSpec, DRAIN_LABEL, DRAIN_PACED,
    DesiredState, EndpointMode, FailureAction, FileReference, HealthCheck, IdSource, JobStatus,
    ManagerStatus, Mount, Network, NetworkAttachment, Node, NodeState, Platform, Plugin,
    Preference, PublishMode, PublishedPort, REBALANCE_LABEL, REBALANCE_ON, RestartCondition,
    Service, ServiceMode, ServiceSpec, Slot, Subnet, Task, TaskState, Timestamp, UpdateConfig,
    UpdateOrder, UpdateState, UpdateStatus, Version, Vip,
};

pub(crate) const NOW: i32 = 100;
/// Since when tasks are in their state if the case does not say.
const SINCE: i32 = 60;

#[derive(Clone)]
pub(crate) struct Count(pub(crate) u128);

impl IdSource for Count {
    fn next_bits(&mut self) -> u128 {
        self.0 += 1;
        self.0
    }
}

/// Plans for the cluster that `case` describes and compares what changes. The plan keeps the rules,
/// and planning again changes nothing.
#[track_caller]
pub(crate) fn check(case: &str, expected: &Expect) {
    let mut view = read(case);
    let mut ids = Count(0);
    let mut planner = Planner::default();
    planner.judge_from(leap(case));
    let Plan { changes, wake } = planner.plan(&view, seconds(NOW), &mut ids);
    let mut lines: Vec<String> =
        changes.changes.iter().flat_map(|change| render(&view, change)).collect();
    lines.sort();
    lines.extend(wake.map(|time| format!("wake {}s", time.0 / 1_000_000_000)));
    let text: String = lines.into_iter().map(|line| line + "\n").collect();
    rules::check(&view, &changes).expect("a plan keeps the rules");
    view.apply(&changes, Version(2), seconds(NOW));
    let again = planner.forgetful().plan(&view, seconds(NOW), &mut ids);
    assert_eq!(again.changes.changes, [], "planning again changes something");
    assert_eq!(again.wake, wake, "planning again wakes at another time");
    expected.assert_eq(&text);
}

/// When the clock leapt forward, in seconds: `clock leapt=90`.
fn leap(case: &str) -> Timestamp {
    let lines = case.lines().filter_map(|line| line.trim().strip_prefix("clock leapt="));
    seconds(lines.map(|seconds| seconds.parse().unwrap()).max().unwrap_or(i32::MIN))
}

pub(crate) fn seconds(seconds: i32) -> Timestamp {
    Timestamp(i64::from(seconds) * 1_000_000_000)
}

/// A line of a case: words, and settings of the form `name=value`.
struct Line<'a> {
    words: Vec<&'a str>,
    settings: BTreeMap<&'a str, &'a str>,
}

impl<'a> Line<'a> {
    fn read(line: &'a str) -> Self {
        let (settings, words): (Vec<&str>, Vec<&str>) =
            line.split_whitespace().partition(|word| word.contains('='));
        Self { words, settings: settings.iter().filter_map(|word| word.split_once('=')).collect() }
    }

    fn has(&self, word: &str) -> bool {
        self.words.contains(&word)
    }

    fn take(&mut self, name: &str) -> Option<&'a str> {
        self.settings.remove(name)
    }

    fn number<T: std::str::FromStr>(&mut self, name: &str) -> Option<T> {
        self.take(name).map(|text| text.parse().ok().expect("a number"))
    }

    fn list(&mut self, name: &str) -> Vec<&'a str> {
        self.take(name).into_iter().flat_map(|text| text.split(',')).collect()
    }

    fn done(&self) {
        assert!(self.settings.is_empty(), "unknown: {:?}", self.settings);
    }
}

/// Reads a case.
pub(crate) fn read(case: &str) -> View {
    let mut view = View::default();
    let mut tx = Tx::new(&view);
    let mut stamps: Vec<(types::TaskId, i32, Timestamp)> = Vec::new();
    for (index, text) in case.lines().filter(|line| !line.trim().is_empty()).enumerate() {
        let mut line = Line::read(text);
        match line.words[0] {
            "clock" => drop(line.settings.remove("leapt")),
            "cluster" => {
                let pools = line.list("pools");
                let mut cluster = Cluster {
                    address_pools: pools.iter().map(|pool| pool.parse().unwrap()).collect(),
                    ..Cluster::default()
                };
                cluster.spec.task_history_limit = line.number("history").unwrap_or(5);
                tx.put_cluster(cluster);
            }
            "node" => tx.put_node(node(&mut line, index)),
            "network" => tx.put_network(network(&mut line)),
            "service" => tx.put_service(service(&mut line)),
            "task" => {
                let born = line.number("born").unwrap_or(0);
                let task = task(&mut line, &tx);
                stamps.push((task.id.clone(), born, task.status.since));
                tx.put_task(task);
            }
            word => panic!("unknown kind of object: {word}"),
        }
        line.done();
    }
    let changes = tx.finish();
    // Tasks are as old as their place in the case says, and were written when their state changed.
    let (tasks, others): (Vec<Change>, Vec<Change>) = changes
        .changes
        .into_iter()
        .partition(|change| matches!(change, Change::Put(Object::Task(_))));
    view.apply(&store::Changes { changes: others }, Version(1), Timestamp(0));
    for (index, (id, born, since)) in stamps.into_iter().enumerate() {
        let birth = Timestamp(seconds(born).0 + i64::try_from(index).unwrap_or(0));
        let mine = tasks.iter().find(|change| change.key() == store::Key::Task(id.clone()));
        let changes = store::Changes { changes: mine.cloned().into_iter().collect() };
        view.apply(&changes, Version(1), birth);
        view.apply(&changes, Version(1), since);
    }
    view
}

fn node(line: &mut Line<'_>, index: usize) -> Node {
    let mut node = Node { id: line.words[1].into(), ..Node::default() };
    node.status.state = if line.has("down") { NodeState::Down } else { NodeState::Ready };
    if line.has("left") {
        Node::LEFT.clone_into(&mut node.status.message);
    }
    node.status.since = seconds(line.number("since").unwrap_or(0));
    node.status.leaving = line.has("leaving");
    if line.has("drain") {
        node.spec.availability = Availability::Drain;
    }
    if line.has("paced") {
        node.spec.labels.insert(DRAIN_LABEL.to_owned(), DRAIN_PACED.to_owned());
    }
    if line.has("pause") {
        node.spec.availability = Availability::Pause;
    }
    let last = u8::try_from(100 + index).expect("few lines");
    node.ingress_addresses = match line.take("ingress") {
        Some("none") => Addresses::default(),
        Some(text) => addresses(text),
        None => [10, 255, 0, last].into(),
    };
    node.description.platform.architecture = line.take("arch").unwrap_or("").to_owned();
    node.description.log_format = line.number("log-format").unwrap_or(0);
    node.manager = line.has("manager").then(ManagerStatus::default);
    node.description.memory_bytes = line.number("memory").unwrap_or(0);
    node.description.nano_cpus = line.number("cpus").unwrap_or(0);
    node.description.generic = types::generic::parse(&line.list("generic")).expect("resources");
    let plugin = |name: &str| Plugin { kind: Plugin::VOLUME.to_owned(), name: name.to_owned() };
    node.description.engine.plugins = line.list("drivers").into_iter().map(plugin).collect();
    for (name, value) in std::mem::take(&mut line.settings) {
        node.spec.labels.insert(name.to_owned(), value.to_owned());
    }
    node
}

fn network(line: &mut Line<'_>) -> Network {
    let mut network = Network { id: line.words[1].into(), ..Network::default() };
    line.words[1].clone_into(&mut network.spec.name);
    network.spec.ingress = line.has("ingress");
    network.removed = line.has("removed");
    network.spec.ipv6 = line.has("ipv6");
    let mut subnets = |name| -> Vec<Subnet> {
        let nets = line.list(name).into_iter().map(|net| net.parse().expect("a subnet"));
        nets.map(|net| Subnet::new(net).expect("an address")).collect()
    };
    network.subnets = subnets("subnet");
    network.spec.subnets = subnets("spec-subnet");
    network.spec.ip_ranges = line.list("range").iter().map(|net| net.parse().unwrap()).collect();
    let aux = line.list("aux").into_iter();
    network.spec.aux_addresses = aux.map(|it| (it.to_owned(), addresses(it))).collect();
    network.vni = line.number("vni").unwrap_or(0);
    network.last_addresses = line.take("last").map(addresses).unwrap_or_default();
    network.last_vni = line.number("last-vni").unwrap_or(0);
    network
}

fn file<I: for<'a> From<&'a str> + Default>(name: &str) -> FileReference<I> {
    FileReference { id: name.into(), name: name.to_owned(), ..FileReference::default() }
}

fn container(line: &mut Line<'_>) -> ContainerSpec {
    let start_period = line.number("start-period").map(Duration::from_secs);
    ContainerSpec {
        secrets: line.list("secret").into_iter().map(file).collect(),
        configs: line.list("config").into_iter().map(file).collect(),
        labels: line
            .list("label")
            .into_iter()
            .map(|name| (name.to_owned(), "true".to_owned()))
            .collect(),
        health: start_period
            .map(|start_period| HealthCheck { start_period, ..HealthCheck::default() }),
        ..ContainerSpec::default()
    }
}

fn mode(line: &mut Line<'_>) -> ServiceMode {
    if line.has("global") {
        ServiceMode::Global
    } else if line.has("global-job") {
        ServiceMode::GlobalJob
    } else if let Some(total_completions) = line.number("job") {
        let max_concurrent = line.number("concurrent").unwrap_or(total_completions);
        ServiceMode::ReplicatedJob { max_concurrent, total_completions }
    } else {
        ServiceMode::Replicated { replicas: line.number("replicas").unwrap_or(1) }
    }
}

/// How often a job was run; writes its schedule into the spec.
fn job(line: &mut Line<'_>, spec: &mut ServiceSpec) -> Option<JobStatus> {
    if line.has("every-minute") {
        spec.labels.insert(types::SCHEDULE_LABEL.to_owned(), "* * * * *".to_owned());
    }
    if let Some(overlap) = line.take("overlap") {
        spec.labels.insert("skep.schedule.overlap".to_owned(), overlap.to_owned());
    }
    spec.mode.is_job().then(|| JobStatus {
        iteration: line.number("iteration").unwrap_or(0),
        last_execution: (!line.has("waits")).then(|| seconds(50)),
        scheduled: line.number("scheduled").map(seconds),
    })
}

fn service(line: &mut Line<'_>) -> Service {
    let name = line.words[1];
    let mut service = Service { id: name.into(), ..Service::default() };
    let spec = &mut service.spec;
    name.clone_into(&mut spec.name);
    spec.mode = mode(line);
    service.job = job(line, spec);
    if let Some(stack) = line.take("stack") {
        spec.labels.insert(types::STACK_LABEL.to_owned(), stack.to_owned());
    }
    if line.has("sticky") {
        spec.labels.insert(types::STICKY_LABEL.to_owned(), "on".to_owned());
    }
    let home =
        |it: &str| it.split_once(':').map(|(slot, node)| (slot.parse().unwrap(), node.into()));
    service.homes = line.list("homes").into_iter().filter_map(home).collect();
    if line.has("rebalance") {
        spec.labels.insert(REBALANCE_LABEL.to_owned(), REBALANCE_ON.to_owned());
    }
    if line.has("dnsrr") {
        spec.endpoint.mode = EndpointMode::Dnsrr;
    }
    spec.endpoint.ports = line.list("ports").into_iter().map(port).collect();
    let wish = |target: &str| NetworkAttachment { target: target.into(), aliases: Vec::new() };
    let task = &mut spec.task;
    task.networks = line.list("networks").into_iter().map(wish).collect();
    task.placement.constraints = line.list("constraint").into_iter().map(str::to_owned).collect();
    let platform = |arch: &str| Platform { architecture: arch.to_owned(), ..Platform::default() };
    task.placement.platforms = line.list("platforms").into_iter().map(platform).collect();
    task.placement.max_replicas_per_node = line.number("max-per-node").unwrap_or(0);
    let preference = |spread: &str| Preference { spread: spread.to_owned() };
    task.placement.preferences = line.list("spread").into_iter().map(preference).collect();
    task.resources.reserve_memory = line.number("memory").unwrap_or(0);
    task.resources.reserve_nano_cpus = line.number("cpus").unwrap_or(0);
    let generic = types::generic::parse(&line.list("generic")).expect("resources");
    task.generic = generic.into_iter().map(|(kind, amount)| (kind, amount.count())).collect();
    task.container = container(line);
    let mount = |driver: &str| Mount { volume_driver: driver.to_owned(), ..Mount::default() };
    task.container.mounts = line.list("volume-driver").into_iter().map(mount).collect();
    let restart = &mut task.restart;
    restart.condition = match line.take("restart") {
        Some("none") => RestartCondition::None,
        Some("on-failure") => RestartCondition::OnFailure,
        _ => RestartCondition::Any,
    };
    restart.delay = line.number("delay").map_or(restart.delay, Duration::from_secs);
    restart.max_attempts = line.number("attempts").unwrap_or(0);
    restart.window = Duration::from_secs(line.number("window").unwrap_or(0));
    spec.update = update(line);
    spec.rollback.failure_action = spec.update.failure_action;
    spec.rollback.parallelism = line.number("rollback-parallelism").unwrap_or(1);
    service.previous_spec = previous(line, &service.spec);
    line.take("image").unwrap_or("").clone_into(&mut service.spec.task.container.image);
    service.ports = line.list("has-ports").into_iter().map(port).collect();
    service.vips = line.list("vip").into_iter().map(vip).collect();
    let began = seconds(line.number("began").unwrap_or(50));
    let lost: Vec<u64> = line.list("lost").iter().map(|slot| slot.parse().unwrap()).collect();
    service.update = line.take("update").map(|state| {
        let state = match state {
            "updating" => UpdateState::Updating,
            "paused" => UpdateState::Paused,
            "rollback" => UpdateState::RollbackStarted,
            "rolled-back" => UpdateState::RollbackCompleted,
            _ => UpdateState::Completed,
        };
        let mut update = UpdateStatus::begun(state, began, "");
        update.failed = lost.into_iter().map(|slot| (Slot::Number(slot), seconds(90))).collect();
        update
    });
    service
}

/// How a service is updated.
fn update(line: &mut Line<'_>) -> UpdateConfig {
    let mut update = UpdateConfig {
        parallelism: line.number("parallelism").unwrap_or(1),
        delay: Duration::from_secs(line.number("update-delay").unwrap_or(0)),
        ..UpdateConfig::default()
    };
    if line.take("order") == Some("start-first") {
        update.order = UpdateOrder::StartFirst;
    }
    update.monitor = line.number("monitor").map_or(update.monitor, Duration::from_secs);
    update.max_failure_ratio = line.number("ratio").unwrap_or(0.0);
    update.failure_action = match line.take("failure") {
        Some("rollback") => FailureAction::Rollback,
        Some("continue") => FailureAction::Continue,
        _ => FailureAction::Pause,
    };
    update
}

/// The spec before the last update, where the line says what was different.
fn previous(line: &mut Line<'_>, spec: &ServiceSpec) -> Option<ServiceSpec> {
    let mut previous = spec.clone();
    let (image, ports) = (line.take("previous"), line.list("had-ports"));
    let (log, replicas) = (line.take("had-log"), line.number("had-replicas"));
    if image.is_none() && ports.is_empty() && log.is_none() && replicas.is_none() {
        return None;
    }
    image.unwrap_or("").clone_into(&mut previous.task.container.image);
    if !ports.is_empty() {
        previous.endpoint.ports = ports.into_iter().map(port).collect();
    }
    log.unwrap_or("").clone_into(&mut previous.task.log_driver);
    if let Some(replicas) = replicas {
        previous.mode = ServiceMode::Replicated { replicas };
    }
    Some(previous)
}

/// `8080:80` or `host:8080:80`.
fn port(text: &str) -> PublishedPort {
    let (mode, text) = match text.strip_prefix("host:") {
        Some(text) => (PublishMode::Host, text),
        None => (PublishMode::Ingress, text),
    };
    let (published, target) = text.split_once(':').expect("two ports");
    PublishedPort {
        published: published.parse().expect("a port"),
        target: target.parse().expect("a port"),
        mode,
        ..PublishedPort::default()
    }
}

fn vip(text: &str) -> Vip {
    let (network, address) = text.split_once('=').expect("network=address");
    Vip { network: network.into(), addresses: addresses(address) }
}

/// `10.0.1.2`, `fd00:1::2`, or both as `10.0.1.2+fd00:1::2`.
fn addresses(text: &str) -> Addresses {
    text.split('+').map(|text| -> IpAddr { text.parse().expect("an address") }).collect()
}

fn task(line: &mut Line<'_>, tx: &Tx) -> Task {
    let (name, slot) = line.words[1].split_once('.').expect("service.slot");
    let mut task = Task { service: name.into(), slot: slot.parse().unwrap(), ..Task::default() };
    name.clone_into(&mut task.service_name);
    let count = tx.tasks_of_service(&task.service).filter(|other| other.slot == task.slot).count();
    task.id = format!("{name}-{slot}-{}", count + 1).as_str().into();
    if let Some(service) = tx.service(&task.service) {
        task.spec = service.spec.task.clone();
        task.ports.clone_from(&service.ports);
        task.iteration = service.job.as_ref().map(|job| job.iteration);
    }
    task.iteration = line.number("iteration").or(task.iteration);
    if let Some(image) = line.take("image") {
        image.clone_into(&mut task.spec.container.image);
    }
    if let Some(constraint) = line.take("constraint") {
        let constraint = Some(constraint.to_owned()).filter(|text| !text.is_empty());
        task.spec.placement.constraints = constraint.into_iter().collect();
    }
    let state = |state: &TaskState| state.as_str() == line.words[2];
    task.status.state = TaskState::ALL.into_iter().find(state).expect("a state");
    task.node = Some(line.words[3]).filter(|node| *node != "-").map(Into::into);
    task.desired = match line.take("desired") {
        Some("ready") => DesiredState::Ready,
        Some("shutdown") => DesiredState::Shutdown,
        Some("remove") => DesiredState::Remove,
        _ => DesiredState::Running,
    };
    task.status.since = seconds(line.number("since").unwrap_or(SINCE));
    task.status.error = line.take("error").unwrap_or("").replace('_', " ");
    task.running_since = line.number("ran").map(seconds);
    task.ingress_addresses = line.take("mesh").map(addresses).unwrap_or_default();
    task.replaces = line.take("replaces").map(Into::into);
    task.generic = types::generic::parse(&line.list("given")).expect("resources");
    task.not_before = line.number("at").map(seconds);
    let restarts = line.list("restarts");
    task.restarts = restarts.iter().map(|text| seconds(text.parse().unwrap())).collect();
    let attachment = |text| {
        let Vip { network, addresses } = vip(text);
        Attachment { network, addresses, aliases: Vec::new() }
    };
    task.attachments = line.list("address").into_iter().map(attachment).collect();
    task
}
