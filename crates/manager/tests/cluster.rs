//! A manager as nodes see it: real log, real TLS, scripted nodes.

#![expect(clippy::unwrap_used, reason = "a test fails where it cannot go on")]

use ca::{Authority, Identity};
use manager::{Config, First, LogSelector, Manager};
use raft::Sequencer;
use scope::Scope;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio_stream::StreamExt;
use tonic::Streaming;
use tonic::transport::Channel;
use types::{
    Availability, ClusterId, ClusterSpec, ContainerStatus, DesiredState, Fault, FaultKind,
    NetworkAttachment, NetworkSpec, NodeDescription, NodeId, NodeRole, NodeState, PublishedPort,
    ServiceId, ServiceMode, ServiceSpec, Task, TaskId, TaskState, TaskStatus, Timestamp, Version,
};
use wire::{
    Acknowledge, Assignments, Difference, DispatcherClient, Heartbeat, IssueRequest, LeaveRequest,
    LogChunk, LogLine, LogOptions, LogRequest, Report, SessionMessage, SessionRequest,
    dispatcher_client, fault_of, membership_client,
};

/// Everything here is quick; this is for a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(30);

/// A cluster with one manager, whose own agent is not there.
struct Cluster {
    manager: Manager,
    sequencer: Sequencer,
    first: Identity,
    scope: Scope,
    _dir: tempfile::TempDir,
}

/// Nobody is lost by chance.
async fn cluster() -> Cluster {
    cluster_with(Duration::from_mins(10)).await
}

async fn cluster_with(heartbeat: Duration) -> Cluster {
    cluster_of(heartbeat, now()).await
}

/// The certificate of its manager holds for a day from `signed_at` on.
async fn cluster_of(heartbeat: Duration, signed_at: Timestamp) -> Cluster {
    let dir = tempfile::tempdir().unwrap();
    let mut scope = Scope::new();
    let log = raft::Config { reserve_bytes: 0, ..raft::Config::new(dir.path().join("raft")) };
    let sequencer = raft::open(log, &mut scope).await.unwrap();
    let root_ca = Authority::create(now()).unwrap();
    let (id, cluster) = (NodeId::from("manager-node"), ClusterId::from("cluster-id"));
    let request = Identity::generate().unwrap();
    let day = Duration::from_hours(24);
    let authority = Authority::load(&root_ca).unwrap();
    let certificate =
        authority.sign(request.csr(), &id, NodeRole::Manager, &cluster, day, signed_at).unwrap();
    let first = request.accept(&certificate, &root_ca.certificate).unwrap();
    let spec = ClusterSpec { heartbeat, ..ClusterSpec::default() };
    let objects = First {
        cluster,
        root_ca,
        spec,
        address_pools: Vec::new(),
        subnet_prefix: 0,
        data_path_port: 0,
        node: id,
        description: NodeDescription::default(),
        address: [127, 0, 0, 1].into(),
        data_path_address: None,
        availability: Availability::Drain,
    };
    manager::bootstrap(&sequencer, objects).await.unwrap();
    let config =
        Config { listen: ([127, 0, 0, 1], 0).into(), managers: vec!["127.0.0.1:1".to_owned()] };
    let manager = Manager::start(config, sequencer.clone(), Arc::new(first.clone()), &mut scope)
        .await
        .unwrap();
    Cluster { manager, sequencer, first, scope, _dir: dir }
}

#[expect(clippy::disallowed_methods, reason = "certificates need the time of day")]
fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    Timestamp(i64::try_from(since.as_nanos()).unwrap())
}

impl Cluster {
    fn address(&self) -> String {
        self.manager.address().to_string()
    }

    fn worker_token(&self) -> String {
        self.manager.view().cluster().unwrap().tokens.worker.clone()
    }

    async fn join(&self) -> Identity {
        self.join_as(Availability::Active).await
    }

    async fn join_as(&self, availability: Availability) -> Identity {
        ca::join(&[self.address()], &self.worker_token(), availability).await.unwrap()
    }

    /// Waits until the store is as wanted.
    async fn until(&self, what: &str, is_so: impl Fn(&store::View) -> bool) {
        let mut views = self.manager.watch();
        let waiting = views.wait_for(|view| is_so(view));
        let reached = tokio::time::timeout(PATIENCE, waiting).await;
        assert!(reached.is_ok(), "never: {what}");
    }

    fn node_state(&self, id: &NodeId) -> NodeState {
        self.manager.view().node(id).unwrap().status.state
    }

    fn tasks(&self, service: &ServiceId) -> Vec<Task> {
        self.manager.view().tasks_of_service(service).map(|task| Task::clone(task)).collect()
    }

    async fn end(self) {
        self.scope.cancel();
        tokio::time::timeout(PATIENCE, self.scope.join()).await.unwrap().unwrap();
    }
}

/// A node that does what the test says, and nothing else.
struct Scripted {
    id: NodeId,
    client: DispatcherClient<Channel>,
    messages: Streaming<SessionMessage>,
    session: String,
    /// What the manager said this node should have.
    has: Assignments,
    logs: Vec<LogRequest>,
}

impl Scripted {
    async fn connect(cluster: &Cluster, identity: &Identity, last: u8) -> Result<Self, Fault> {
        let config = ca::tls::client_config(identity).unwrap();
        let channel = ca::connect(&cluster.address(), config).await?;
        let mut client = dispatcher_client(channel);
        let description =
            NodeDescription { hostname: format!("node-{last}"), ..NodeDescription::default() };
        let address = [192, 168, 0, last].into();
        let request = SessionRequest { description, address, data_path_address: None };
        let messages = client.session(request).await.map_err(fault_of)?.into_inner();
        let mut node = Self {
            id: identity.node_id(),
            client,
            messages,
            session: String::new(),
            has: Assignments::default(),
            logs: Vec::new(),
        };
        node.read().await;
        node.read().await;
        assert!(!node.session.is_empty() && node.has.version > 0, "no Welcome and Whole first");
        Ok(node)
    }

    /// Takes one message; false when the session has ended.
    async fn read(&mut self) -> bool {
        let message = tokio::time::timeout(PATIENCE, self.messages.message()).await;
        match message.expect("a message in time") {
            Ok(Some(SessionMessage::Welcome(welcome))) => self.session = welcome.session,
            Ok(Some(SessionMessage::Whole(whole))) => self.has = whole,
            Ok(Some(SessionMessage::Difference(difference))) => self.change(difference),
            Ok(Some(SessionMessage::Logs(request))) => self.logs.push(request),
            Ok(Some(SessionMessage::LogsDone(_))) => {}
            Ok(None) | Err(_) => return false,
        }
        true
    }

    fn change(&mut self, difference: Difference) {
        assert_eq!(difference.from, self.has.version, "a difference to something else");
        self.has.version = difference.version;
        self.has.tasks.extend(difference.tasks);
        self.has.tasks.retain(|id, _| !difference.removed_tasks.contains(id));
        self.has.withdrawn = difference.withdrawn.unwrap_or_else(|| self.has.withdrawn.clone());
        let knowledge = &mut self.has.knowledge;
        knowledge.networks.extend(difference.networks);
        knowledge.networks.retain(|id, _| !difference.removed_networks.contains(id));
        knowledge.mesh = difference.mesh.unwrap_or_else(|| knowledge.mesh.clone());
    }

    async fn read_until(&mut self, what: &str, is_so: impl Fn(&Self) -> bool) {
        while !is_so(self) {
            assert!(self.read().await, "the session ended before: {what}");
        }
    }

    async fn acknowledge(&mut self) {
        let (session, version) = (self.session.clone(), self.has.version);
        self.client.acknowledge(Acknowledge { session, version }).await.unwrap();
    }

    async fn report(&mut self, task: &TaskId, state: TaskState) {
        let container = ContainerStatus { id: "c0ffee".repeat(8), pid: 7, exit_code: 0 };
        let status = TaskStatus { state, container: Some(container), ..TaskStatus::default() };
        let statuses = BTreeMap::from([(task.clone(), status)]);
        let session = self.session.clone();
        self.client.report(Report { session, statuses, sent_at: now() }).await.unwrap();
    }

    async fn beat(&mut self) -> Result<Duration, Fault> {
        let session = self.session.clone();
        let reply = self.client.heartbeat(Heartbeat { session }).await.map_err(fault_of)?;
        Ok(Duration::from_millis(reply.into_inner().next_millis))
    }

    fn mesh_serving(&self) -> usize {
        self.has.knowledge.mesh.tasks.values().filter(|task| task.serving).count()
    }

    /// The endpoints that this node may lead traffic to.
    fn serving(&self) -> Vec<TaskId> {
        let networks = self.has.knowledge.networks.values();
        let endpoints = networks.flat_map(|network| &network.endpoints);
        endpoints.filter(|(_, endpoint)| endpoint.serving).map(|(id, _)| id.clone()).collect()
    }
}

async fn web(cluster: &Cluster, replicas: u64) -> ServiceId {
    let network = NetworkSpec { name: "front".to_owned(), ..NetworkSpec::default() };
    let network = cluster.manager.create_network(network).await.unwrap();
    let mut spec = ServiceSpec { name: "web".to_owned(), ..ServiceSpec::default() };
    spec.mode = ServiceMode::Replicated { replicas };
    spec.task.container.image = "image".into();
    spec.task.networks =
        vec![NetworkAttachment { target: network, ..NetworkAttachment::default() }];
    spec.endpoint.ports =
        vec![PublishedPort { published: 8080, target: 80, ..PublishedPort::default() }];
    cluster.manager.create_service(spec).await.unwrap()
}

async fn scale(cluster: &Cluster, id: &ServiceId, replicas: usize) {
    let replicas = u64::try_from(replicas).unwrap();
    loop {
        let service = Arc::clone(cluster.manager.view().service(id).unwrap());
        let mut spec = service.spec.clone();
        spec.mode = ServiceMode::Replicated { replicas };
        match cluster.manager.update_service(id, service.meta.version, spec, false).await {
            Ok(()) => return,
            // The planner wrote how far the last update is.
            Err(fault) => assert!(fault.message.ends_with("update out of sequence"), "{fault}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_serves_once_it_runs_and_is_withdrawn_once_all_nodes_have_seen_it() {
    let cluster = cluster().await;
    let (one, two) = (cluster.join().await, cluster.join().await);
    let mut first = Scripted::connect(&cluster, &cluster.first, 9).await.unwrap();
    let mut one = Scripted::connect(&cluster, &one, 1).await.unwrap();
    let mut two = Scripted::connect(&cluster, &two, 2).await.unwrap();
    let web = web(&cluster, 2).await;
    one.read_until("a task on node one", |node| node.has.tasks.len() == 1).await;
    two.read_until("a task on node two", |node| node.has.tasks.len() == 1).await;
    assert_eq!(one.has.knowledge.networks.len(), 1, "the task's network is known with the task");
    assert!(one.serving().is_empty());
    let tasks: Vec<TaskId> =
        [&one, &two].map(|node| node.has.tasks.keys().next().unwrap().clone()).into();
    one.report(&tasks[0], TaskState::Running).await;
    two.report(&tasks[1], TaskState::Running).await;
    first.read_until("the mesh has two", |node| node.mesh_serving() == 2).await;
    for node in [&mut one, &mut two] {
        node.read_until("both tasks serve", |node| node.serving().len() == 2).await;
        node.acknowledge().await;
    }

    scale(&cluster, &web, 1).await;
    for node in [&mut one, &mut two] {
        node.read_until("one task serves", |node| node.serving().len() == 1).await;
    }
    let stopping =
        cluster.tasks(&web).into_iter().find(|task| task.desired > DesiredState::Running).unwrap();
    let (on, other) = if stopping.node.as_ref() == Some(&one.id) {
        (&mut one, &mut two)
    } else {
        (&mut two, &mut one)
    };
    on.acknowledge().await;
    first.read_until("the mesh has one", |node| node.mesh_serving() == 1).await;
    first.acknowledge().await;
    assert!(on.has.withdrawn.is_empty(), "withdrawn before the other node has seen it");
    other.acknowledge().await;
    on.read_until("the task is withdrawn", |node| node.has.withdrawn.contains(&stopping.id)).await;
    on.report(&stopping.id, TaskState::Shutdown).await;
    cluster
        .until("the task has ended", |view| {
            view.task(&stopping.id).is_none_or(|task| task.status.state == TaskState::Shutdown)
        })
        .await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_says_nothing_is_down_and_is_back_when_it_speaks_again() {
    let cluster = cluster_with(Duration::from_millis(300)).await;
    let identity = cluster.join().await;
    let node = Scripted::connect(&cluster, &identity, 1).await.unwrap();
    let id = node.id.clone();
    assert_eq!(cluster.node_state(&id), NodeState::Ready);
    cluster
        .until("the node is down", |view| view.node(&id).unwrap().status.state == NodeState::Down)
        .await;
    let mut node = Scripted::connect(&cluster, &identity, 1).await.unwrap();
    assert_eq!(cluster.node_state(&id), NodeState::Ready);
    let next = node.beat().await.unwrap();
    assert!(next <= Duration::from_millis(300), "{next:?}");
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newer_session_takes_the_place_of_an_older_one() {
    let cluster = cluster().await;
    let identity = cluster.join().await;
    let mut old = Scripted::connect(&cluster, &identity, 1).await.unwrap();
    let mut new = Scripted::connect(&cluster, &identity, 1).await.unwrap();
    while old.read().await {}
    assert_eq!(old.beat().await.unwrap_err().kind, FaultKind::NotFound);
    new.beat().await.unwrap();
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_wrong_tokens_and_removed_nodes_are_refused() {
    let cluster = cluster().await;
    let malformed = ca::join(&[cluster.address()], "SWMTKN-1-nonsense", Availability::Active)
        .await
        .unwrap_err();
    assert_eq!(malformed, Fault::invalid("invalid join token"));
    // A token of the right cluster with a wrong secret.
    let token = cluster.worker_token();
    let (start, _) = token.rsplit_once('-').unwrap();
    let wrong = format!("{start}-{}", "0".repeat(25));
    let refused = ca::join(&[cluster.address()], &wrong, Availability::Active).await.unwrap_err();
    assert_eq!(refused, Fault::forbidden(ca::TOKEN_REFUSED));
    let manager = cluster.manager.view().cluster().unwrap().tokens.manager.clone();
    let refused = ca::join(&[cluster.address()], &manager, Availability::Active).await.unwrap_err();
    assert_eq!(refused.kind, FaultKind::NotImplemented);
    assert!(refused.message.contains("one manager"), "{refused}");

    let digest = ca::JoinToken::parse(&token).unwrap().digest().to_owned();
    let stranger = ca::tls::bootstrap_client_config(&digest).unwrap();
    let channel = ca::connect(&cluster.address(), stranger).await.unwrap();
    let report = dispatcher_client(channel).report(Report::default()).await;
    assert_eq!(fault_of(report.unwrap_err()).kind, FaultKind::Forbidden);

    let identity = cluster.join().await;
    let id = identity.node_id();
    cluster.manager.remove_node(&id, true).await.unwrap();
    let refused = Scripted::connect(&cluster, &identity, 1).await.map(|_| ()).unwrap_err();
    assert_eq!(refused, Fault::not_found(format!("node {id} not found")));
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_renews_its_certificate_and_leaves() {
    let cluster = cluster().await;
    let identity = cluster.join().await;
    let node = Scripted::connect(&cluster, &identity, 1).await.unwrap();
    let config = ca::tls::client_config(&identity).unwrap();
    let channel = ca::connect(&cluster.address(), config).await.unwrap();
    ca::renew(channel.clone(), &identity).await.unwrap();
    assert_eq!(identity.node_id(), node.id);
    membership_client(channel).leave(LeaveRequest {}).await.unwrap();
    assert_eq!(cluster.node_state(&node.id), NodeState::Down);
    let left = cluster.manager.view().node(&node.id).unwrap().status.message.clone();
    assert_eq!(left, "left");
    let again = Scripted::connect(&cluster, &identity, 1).await.map(|_| ()).unwrap_err();
    assert_eq!(again.kind, FaultKind::Forbidden, "{again}");
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logs_come_from_the_nodes_that_hold_the_tasks() {
    let cluster = cluster().await;
    let identity = cluster.join().await;
    let mut node = Scripted::connect(&cluster, &identity, 1).await.unwrap();
    let web = web(&cluster, 1).await;
    node.read_until("a task", |node| node.has.tasks.len() == 1).await;
    let task = node.has.tasks.keys().next().unwrap().clone();
    node.report(&task, TaskState::Running).await;
    let options = LogOptions { stdout: true, ..LogOptions::default() };
    let selector = LogSelector::Service(web);
    let mut lines = cluster.manager.logs(selector, options).await.unwrap();
    node.read_until("a wish for logs", |node| !node.logs.is_empty()).await;
    let request = node.logs.pop().unwrap();
    assert!(request.tasks.contains(&task));
    let line = |task: &TaskId, text: &str| LogLine {
        task: task.clone(),
        node: "someone-else".into(),
        text: text.into(),
        ..LogLine::default()
    };
    let chunk = LogChunk {
        subscription: request.subscription.clone(),
        lines: vec![line(&task, "hello\n"), line(&"not-its-task".into(), "forged\n")],
        end: true,
        error: String::new(),
    };
    let sending = tokio_stream::iter([chunk]);
    node.client.publish_logs(sending).await.unwrap();
    let first = tokio::time::timeout(PATIENCE, lines.next()).await.unwrap().unwrap().unwrap();
    assert_eq!((first.text.as_slice(), &first.node), (b"hello\n".as_slice(), &node.id));
    let end = tokio::time::timeout(PATIENCE, lines.next()).await.unwrap();
    assert!(end.is_none(), "{end:?}");
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn user_operations_are_checked_against_the_newest_view() {
    let cluster = cluster().await;
    let swarm = cluster.manager.view().cluster().cloned().unwrap();
    let id = web(&cluster, 1).await;
    let service = Arc::clone(cluster.manager.view().service(&id).unwrap());
    cluster.until("its network is there", |view| view.networks().all(|it| it.vni != 0)).await;
    // What the planner does changes nothing under a user who has read the cluster before.
    let (version, spec) = (swarm.meta.version, swarm.spec.clone());
    cluster.manager.update_cluster(version, spec, manager::Rotate::default()).await.unwrap();
    let again = cluster.manager.create_service(service.spec.clone()).await.unwrap_err();
    assert_eq!(again.kind, FaultKind::Conflict);
    let late = cluster.manager.update_service(&id, Version(1), service.spec.clone(), false).await;
    assert!(late.unwrap_err().message.contains("update out of sequence"));
    let network = service.spec.task.networks[0].target.clone();
    let used = cluster.manager.remove_network(&network).await.unwrap_err();
    assert_eq!(used.message, format!("network {network} is in use by service {id}"));
    cluster.manager.remove_service(&id).await.unwrap();
    cluster.manager.remove_network(&network).await.unwrap();
    cluster.until("its tasks are gone", |view| view.tasks().len() == 0).await;
    assert!(cluster.sequencer.view().network(&network).is_none());
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_node_stays_down_though_its_connection_is_open() {
    let cluster = cluster_with(Duration::from_millis(300)).await;
    let identity = cluster.join().await;
    let mut node = Scripted::connect(&cluster, &identity, 1).await.unwrap();
    let id = node.id.clone();
    let is_down = |view: &store::View| view.node(&id).unwrap().status.state == NodeState::Down;
    cluster.until("the node is down", is_down).await;
    // Its session ends, so that it finds out.
    while node.read().await {}
    assert_eq!(node.beat().await.unwrap_err().kind, FaultKind::NotFound);
    // Ten heartbeats later it would have gone up and down several times.
    let mut views = cluster.manager.watch();
    let back = views.wait_for(|view| !is_down(view));
    assert!(tokio::time::timeout(Duration::from_secs(3), back).await.is_err(), "it is back");
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shorter_heartbeat_loses_nobody_who_keeps_to_the_longer_one() {
    let cluster = cluster_with(Duration::from_secs(5)).await;
    let identity = cluster.join().await;
    let mut node = Scripted::connect(&cluster, &identity, 1).await.unwrap();
    node.beat().await.unwrap();
    let before = Arc::clone(cluster.manager.view().cluster().unwrap());
    let spec = ClusterSpec { heartbeat: Duration::from_millis(300), ..before.spec.clone() };
    let manager = &cluster.manager;
    manager.update_cluster(before.meta.version, spec, manager::Rotate::default()).await.unwrap();
    let mut views = manager.watch();
    let down = views.wait_for(|view| view.node(&node.id).unwrap().status.state != NodeState::Ready);
    assert!(tokio::time::timeout(Duration::from_secs(3), down).await.is_err(), "it was lost");
    let next = node.beat().await.unwrap();
    assert!(next <= Duration::from_millis(300), "{next:?}");
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_does_not_acknowledge_keeps_its_session_and_gets_the_rest_at_once() {
    let cluster = cluster().await;
    let identity = cluster.join().await;
    let mut node = Scripted::connect(&cluster, &identity, 1).await.unwrap();
    let mut other = Scripted::connect(&cluster, &cluster.first, 9).await.unwrap();
    let web = web(&cluster, 1).await;
    for replicas in 2..=40 {
        scale(&cluster, &web, replicas).await;
        let known = |node: &Scripted| node.has.knowledge.mesh.tasks.len();
        other.read_until("a task more", |node| known(node) >= replicas).await;
        other.acknowledge().await;
    }
    node.read_until("eight versions", |node| node.has.version >= 8).await;
    node.acknowledge().await;
    node.read_until("all tasks", |node| node.has.tasks.len() == 40).await;
    assert!(node.has.version < other.has.version, "{} versions", node.has.version);
    node.beat().await.unwrap();
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logs_that_nobody_reads_do_not_hold_up_heartbeats() {
    let cluster = cluster().await;
    let identity = cluster.join().await;
    let mut node = Scripted::connect(&cluster, &identity, 1).await.unwrap();
    let web = web(&cluster, 1).await;
    node.read_until("a task", |node| node.has.tasks.len() == 1).await;
    let task = node.has.tasks.keys().next().unwrap().clone();
    node.report(&task, TaskState::Running).await;
    let mut unread = Vec::new();
    let mut sending = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let options = LogOptions { stdout: true, follow: true, ..LogOptions::default() };
        let selector = LogSelector::Service(web.clone());
        unread.push(cluster.manager.logs(selector, options).await.unwrap());
        node.read_until("a wish for logs", |node| !node.logs.is_empty()).await;
        let subscription = node.logs.pop().unwrap().subscription;
        let line = LogLine { task: task.clone(), text: vec![b'x'; 200], ..LogLine::default() };
        let chunk = LogChunk { subscription, lines: vec![line; 100], ..LogChunk::default() };
        let mut client = node.client.clone();
        let chunks = tokio_stream::iter(std::iter::repeat_n(chunk, 1000));
        sending.spawn(async move { client.publish_logs(chunks).await });
    }
    // Long enough for what nobody reads to fill every buffer on the way.
    for _ in 0..20 {
        let beat = tokio::time::timeout(Duration::from_secs(5), node.beat()).await;
        beat.expect("the heartbeat waits for the logs").unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(sending.try_join_next().is_none(), "the logs went somewhere");
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logs_whose_call_breaks_off_end_with_a_word_on_it() {
    let cluster = cluster().await;
    let identity = cluster.join().await;
    let mut node = Scripted::connect(&cluster, &identity, 1).await.unwrap();
    let web = web(&cluster, 1).await;
    node.read_until("a task", |node| node.has.tasks.len() == 1).await;
    let task = node.has.tasks.keys().next().unwrap().clone();
    node.report(&task, TaskState::Running).await;
    let options = LogOptions { stdout: true, ..LogOptions::default() };
    let mut lines = cluster.manager.logs(LogSelector::Service(web), options).await.unwrap();
    node.read_until("a wish for logs", |node| !node.logs.is_empty()).await;
    let subscription = node.logs.pop().unwrap().subscription;
    let line = LogLine { task, text: b"hello".to_vec(), ..LogLine::default() };
    let chunk = LogChunk { subscription, lines: vec![line], ..LogChunk::default() };
    let chunks = tokio_stream::iter([chunk]).chain(tokio_stream::pending());
    let mut client = node.client.clone();
    let mut sending = tokio::task::JoinSet::new();
    sending.spawn(async move { client.publish_logs(chunks).await });
    let mut next = async || tokio::time::timeout(PATIENCE, lines.next()).await.unwrap();
    assert_eq!(next().await.unwrap().unwrap().text, b"hello");
    sending.shutdown().await;
    let fault = next().await.unwrap().unwrap_err();
    assert!(fault.message.contains("incomplete log stream"), "{fault}");
    assert!(next().await.is_none());
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tasks_of_a_node_that_leaves_are_replaced_at_once() {
    let cluster = cluster().await;
    let identities = [cluster.join().await, cluster.join().await];
    let mut one = Scripted::connect(&cluster, &identities[0], 1).await.unwrap();
    let web = web(&cluster, 1).await;
    one.read_until("a task", |node| node.has.tasks.len() == 1).await;
    let task = one.has.tasks.keys().next().unwrap().clone();
    one.report(&task, TaskState::Running).await;
    let mut two = Scripted::connect(&cluster, &identities[1], 2).await.unwrap();
    let config = ca::tls::client_config(&identities[0]).unwrap();
    let channel = ca::connect(&cluster.address(), config).await.unwrap();
    membership_client(channel).leave(LeaveRequest {}).await.unwrap();
    let starts = |task: &Task| task.desired == DesiredState::Running && task.not_before.is_none();
    two.read_until("its task", |node| node.has.tasks.values().any(starts)).await;
    assert_eq!(cluster.tasks(&web).len(), 2, "the old one is remembered");
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_joins_with_the_availability_that_it_asks_for() {
    let cluster = cluster().await;
    let drained = cluster.join_as(Availability::Drain).await;
    let active = cluster.join().await;
    let view = cluster.manager.view();
    let availability = |node: &Identity| view.node(&node.node_id()).unwrap().spec.availability;
    assert_eq!(availability(&drained), Availability::Drain);
    assert_eq!(availability(&active), Availability::Active);
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manager_whose_certificate_has_expired_signs_itself_a_new_one() {
    let cluster = cluster_of(Duration::from_mins(10), now().before(Duration::from_hours(48))).await;
    assert!(cluster.first.expires_at() > now().after(Duration::from_hours(1)));
    let mut own = Scripted::connect(&cluster, &cluster.first, 9).await.unwrap();
    own.beat().await.unwrap();
    cluster.join().await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_join_that_is_repeated_makes_one_node() {
    let cluster = cluster().await;
    let root = cluster.manager.view().cluster().unwrap().root_ca.certificate.clone();
    let config = ca::tls::bootstrap_client_config(&ca::root_digest(&root).unwrap()).unwrap();
    let channel = ca::connect(&cluster.address(), config).await.unwrap();
    let mut client = membership_client(channel);
    let request = Identity::generate().unwrap();
    let (token, csr) = (cluster.worker_token(), request.csr().to_owned());
    let wish = IssueRequest { token, csr, ..IssueRequest::default() };
    let first = client.issue(wish.clone()).await.unwrap().into_inner();
    let second = client.issue(wish).await.unwrap().into_inner();
    assert_eq!(first.node, second.node);
    let joined = request.accept(&second.certificate, &second.root).unwrap();
    assert_eq!(joined.node_id(), first.node);
    assert_eq!(cluster.manager.view().nodes().count(), 2, "with the manager");
    cluster.end().await;
}

/// What is refused to a node that is none any more, and that its connections end.
async fn is_out(cluster: &Cluster, identity: &Identity, channel: Channel, mut node: Scripted) {
    let id = identity.node_id();
    let renewal = ca::renew(channel.clone(), identity).await.unwrap_err();
    assert!(matches!(renewal.kind, FaultKind::Forbidden | FaultKind::NotFound), "{id}: {renewal}");
    let config = ca::tls::client_config(identity).unwrap();
    let anew = ca::connect(&cluster.address(), config).await.unwrap();
    let renewal = ca::renew(anew, identity).await.unwrap_err();
    assert!(matches!(renewal.kind, FaultKind::Forbidden | FaultKind::NotFound), "{id}: {renewal}");
    let session = Scripted::connect(cluster, identity, 7).await.map(|_| ()).unwrap_err();
    assert!(matches!(session.kind, FaultKind::Forbidden | FaultKind::NotFound), "{session}");
    // Its session ends with its connection.
    let end = async { while node.read().await {} };
    tokio::time::timeout(Duration::from_secs(10), end).await.expect("its connection ends");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_none_any_more_renews_nothing_and_its_connections_end() {
    let cluster = cluster().await;
    let connect = async |identity: &Identity| {
        let config = ca::tls::client_config(identity).unwrap();
        ca::connect(&cluster.address(), config).await.unwrap()
    };
    let (left, removed) = (cluster.join().await, cluster.join().await);
    let channel = connect(&left).await;
    let node = Scripted::connect(&cluster, &left, 1).await.unwrap();
    membership_client(connect(&left).await).leave(LeaveRequest {}).await.unwrap();
    is_out(&cluster, &left, channel, node).await;

    let channel = connect(&removed).await;
    let node = Scripted::connect(&cluster, &removed, 2).await.unwrap();
    cluster.manager.remove_node(&removed.node_id(), true).await.unwrap();
    is_out(&cluster, &removed, channel, node).await;

    let demoted = cluster.first.clone();
    let channel = connect(&demoted).await;
    let node = Scripted::connect(&cluster, &demoted, 9).await.unwrap();
    let id = demoted.node_id();
    let demote = cluster.sequencer.sequence(move |view: &store::View, _| {
        let mut tx = store::Tx::new(view);
        tx.edit_node(&id, |node| node.role = NodeRole::Worker);
        Ok(tx.finish())
    });
    demote.await.unwrap();
    is_out(&cluster, &demoted, channel, node).await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_guesses_tokens_keeps_no_node_out() {
    let cluster = cluster().await;
    let node = cluster.join().await;
    let config = ca::tls::client_config(&node).unwrap();
    let channel = ca::connect(&cluster.address(), config).await.unwrap();
    let token = cluster.worker_token();
    let (start, _) = token.rsplit_once('-').unwrap();
    let mut guesses = tokio::task::JoinSet::new();
    for guess in 0..200 {
        let (address, token) = (cluster.address(), format!("{start}-{guess:025}"));
        guesses.spawn(async move { ca::join(&[address], &token, Availability::Active).await });
    }
    // At least one was told that it is wrong; others are still at it.
    assert!(guesses.join_next().await.unwrap().unwrap().is_err());
    // From the same address as they.
    let enter = async {
        cluster.join().await;
        ca::renew(channel, &node).await.unwrap();
    };
    tokio::time::timeout(Duration::from_secs(5), enter).await.expect("nodes get in and renew");
    guesses.shutdown().await;
    cluster.end().await;
}

/// On one thread, so that whoever sends never lets the manager find its inbox empty.
#[tokio::test]
async fn a_silent_node_is_lost_whatever_others_say() {
    let cluster = cluster_with(Duration::from_millis(300)).await;
    let (silent, loud) = (cluster.join().await, cluster.join().await);
    let silent = Scripted::connect(&cluster, &silent, 1).await.unwrap();
    let loud = Scripted::connect(&cluster, &loud, 2).await.unwrap();
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..200 {
        let (mut client, session) = (loud.client.clone(), loud.session.clone());
        calls.spawn(async move {
            loop {
                let acknowledge = Acknowledge { session: session.clone(), version: 1 };
                client.acknowledge(acknowledge).await.unwrap();
            }
        });
    }
    let is_down =
        |view: &store::View| view.node(&silent.id).unwrap().status.state == NodeState::Down;
    cluster.until("the silent node is down", is_down).await;
    calls.shutdown().await;
    cluster.end().await;
}
