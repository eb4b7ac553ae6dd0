//! A cluster with one manager, and nodes that do what a test says.

use ca::{Authority, Identity, Peer};
use manager::{Config, First, Manager, Peers};
use raft::Sequencer;
use scope::Scope;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tonic::Streaming;
use tonic::transport::Channel;
use types::{
    Availability, ClusterId, ClusterSpec, ContainerStatus, Fault, NetworkAttachment, NetworkSpec,
    NodeDescription, NodeId, NodeRole, NodeState, PublishedPort, ServiceId, ServiceMode,
    ServiceSpec, Task, TaskId, TaskState, TaskStatus, Timestamp,
};
use wire::{
    Acknowledge, Assignments, Difference, DispatcherClient, Heartbeat, HeartbeatReply, LogRequest,
    Release, Report, SessionMessage, SessionRequest, dispatcher_client, fault_of,
};

/// Everything here is quick; this is for a machine that is busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A cluster with one manager, whose own agent is not there.
pub(crate) struct Cluster {
    pub(crate) manager: Manager,
    pub(crate) sequencer: Sequencer,
    pub(crate) first: Identity,
    pub(crate) scope: Scope,
    _dir: tempfile::TempDir,
}

/// Nobody is lost by chance.
pub(crate) async fn cluster() -> Cluster {
    cluster_with(Duration::from_mins(10)).await
}

pub(crate) async fn cluster_with(heartbeat: Duration) -> Cluster {
    cluster_of(heartbeat, now()).await
}

/// The certificate of its manager holds for a day from `signed_at` on.
pub(crate) async fn cluster_of(heartbeat: Duration, signed_at: Timestamp) -> Cluster {
    let dir = tempfile::tempdir().unwrap();
    let mut scope = Scope::new();
    let listen = free_address().await;
    let log = raft::Config {
        reserve_bytes: 0,
        ..raft::Config::new(dir.path().join("raft"), raft::Key::from([7; 32]))
    };
    let root_ca = Authority::create(now()).unwrap();
    let (id, cluster) = (NodeId::from("manager-node"), ClusterId::from("cluster-id"));
    let request = Identity::generate().unwrap();
    let day = Duration::from_hours(24);
    let authority = Authority::load(&root_ca).unwrap();
    let peer = Peer { node: id.clone(), role: NodeRole::Manager, cluster: cluster.clone() };
    let certificate = authority.sign(request.csr(), &peer, day, signed_at).unwrap();
    let first = request.accept(&certificate, &root_ca.certificate).unwrap();
    let peers = Peers::new(Arc::new(first.clone()), raft::FIRST_MEMBER);
    let sequencer = raft::open(log, peers.clone(), &mut scope).await.unwrap();
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
        manager_address: listen.to_string(),
        data_path_address: None,
        availability: Availability::Drain,
    };
    manager::bootstrap(&sequencer, objects).await.unwrap();
    let config = Config { listen, address: listen.to_string() };
    let log = (sequencer.clone(), peers);
    let manager = Manager::start(config, log, Arc::new(first.clone()), &mut scope).await.unwrap();
    Cluster { manager, sequencer, first, scope, _dir: dir }
}

/// An address on loopback that nobody listens on.
pub(crate) async fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

#[expect(clippy::disallowed_methods, reason = "certificates need the time of day")]
pub(crate) fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    Timestamp(i64::try_from(since.as_nanos()).unwrap())
}

impl Cluster {
    pub(crate) fn address(&self) -> String {
        self.manager.address().to_string()
    }

    pub(crate) fn worker_token(&self) -> String {
        self.manager.view().cluster().unwrap().tokens.worker.clone()
    }

    pub(crate) async fn join(&self) -> Identity {
        self.join_as(Availability::Active).await
    }

    pub(crate) async fn join_as_manager(&self) -> Identity {
        let token = self.manager.view().cluster().unwrap().tokens.manager.clone();
        ca::join(&[self.address()], &token, Availability::Active).await.unwrap()
    }

    pub(crate) async fn join_as(&self, availability: Availability) -> Identity {
        ca::join(&[self.address()], &self.worker_token(), availability).await.unwrap()
    }

    /// A connection as one of the cluster's nodes.
    pub(crate) async fn connect(&self, identity: &Identity) -> Channel {
        let config = ca::tls::client_config(identity).unwrap();
        ca::connect(&self.address(), config).await.unwrap()
    }

    /// Waits until the store is as wanted.
    pub(crate) async fn until(&self, what: &str, is_so: impl Fn(&store::View) -> bool) {
        let mut views = self.manager.watch();
        let waiting = views.wait_for(|view| is_so(view));
        let reached = tokio::time::timeout(PATIENCE, waiting).await;
        assert!(reached.is_ok(), "never: {what}");
    }

    pub(crate) fn node_state(&self, id: &NodeId) -> NodeState {
        self.manager.view().node(id).unwrap().status.state
    }

    pub(crate) fn tasks(&self, service: &ServiceId) -> Vec<Task> {
        self.manager.view().tasks_of_service(service).map(|task| Task::clone(task)).collect()
    }

    pub(crate) async fn end(self) {
        self.scope.cancel();
        tokio::time::timeout(PATIENCE, self.scope.join()).await.unwrap().unwrap();
    }
}

/// A node that does what the test says, and nothing else.
pub(crate) struct Scripted {
    pub(crate) id: NodeId,
    pub(crate) client: DispatcherClient<Channel>,
    pub(crate) messages: Streaming<SessionMessage>,
    pub(crate) session: String,
    /// What the manager said that it is.
    pub(crate) role: Option<NodeRole>,
    /// What the manager said this node should have.
    pub(crate) has: Assignments,
    logs: Vec<LogRequest>,
}

impl Scripted {
    /// The session of a node that joins now.
    pub(crate) async fn join(cluster: &Cluster) -> Self {
        Self::connect(cluster, &cluster.join().await, 1).await.unwrap()
    }

    /// A session. The node's address ends in `last`.
    pub(crate) async fn connect(
        cluster: &Cluster,
        identity: &Identity,
        last: u8,
    ) -> Result<Self, Fault> {
        Self::connect_to(&cluster.address(), identity, last).await
    }

    /// A session with the manager at `address`.
    pub(crate) async fn connect_to(
        address: &str,
        identity: &Identity,
        last: u8,
    ) -> Result<Self, Fault> {
        let config = ca::tls::client_config(identity).unwrap();
        let channel = ca::connect(address, config).await?;
        let mut client = dispatcher_client(channel);
        let description = NodeDescription {
            hostname: format!("node-{last}"),
            trust_root: identity.roots(),
            issuer: identity.issuer(),
            ..NodeDescription::default()
        };
        let address = [192, 168, 0, last].into();
        let release = Release::own();
        let request = SessionRequest { release, description, address, ..SessionRequest::default() };
        let messages = client.session(request).await.map_err(fault_of)?.into_inner();
        let mut node = Self {
            id: identity.node_id(),
            client,
            messages,
            session: String::new(),
            role: None,
            has: Assignments::default(),
            logs: Vec::new(),
        };
        node.read().await;
        node.read().await;
        assert!(!node.session.is_empty() && node.has.version > 0, "no Welcome and Whole first");
        Ok(node)
    }

    /// Takes one message; false when the session has ended.
    pub(crate) async fn read(&mut self) -> bool {
        let message = tokio::time::timeout(PATIENCE, self.messages.message()).await;
        match message.expect("a message in time") {
            Ok(Some(SessionMessage::Welcome(welcome))) => {
                (self.session, self.role) = (welcome.session, welcome.role);
            }
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
        difference.apply(&mut self.has);
    }

    pub(crate) async fn read_until(&mut self, what: &str, is_so: impl Fn(&Self) -> bool) {
        while !is_so(self) {
            assert!(self.read().await, "the session ended before: {what}");
        }
    }

    pub(crate) async fn acknowledge(&mut self) {
        let (session, version) = (self.session.clone(), self.has.version);
        self.client.acknowledge(Acknowledge { session, version }).await.unwrap();
    }

    pub(crate) async fn report(&mut self, task: &TaskId, state: TaskState) {
        let container = ContainerStatus { id: "c0ffee".repeat(8), pid: 7, exit_code: 0 };
        let status = TaskStatus { state, container: Some(container), ..TaskStatus::default() };
        let statuses = BTreeMap::from([(task.clone(), status)]);
        let session = self.session.clone();
        self.client
            .report(Report { session, statuses, sent_at: now(), ..Report::default() })
            .await
            .unwrap();
    }

    /// Waits for the first task, and says that it runs.
    pub(crate) async fn runs_a_task(&mut self) -> TaskId {
        self.read_until("a task", |node| node.has.tasks.len() == 1).await;
        let task = self.has.tasks.keys().next().unwrap().clone();
        self.report(&task, TaskState::Running).await;
        task
    }

    /// Waits until somebody wants logs.
    pub(crate) async fn log_request(&mut self) -> LogRequest {
        self.read_until("a wish for logs", |node| !node.logs.is_empty()).await;
        self.logs.pop().unwrap()
    }

    pub(crate) async fn beat(&mut self) -> Result<Duration, Fault> {
        Ok(Duration::from_millis(self.heartbeat().await?.next_millis))
    }

    pub(crate) async fn heartbeat(&mut self) -> Result<HeartbeatReply, Fault> {
        let session = self.session.clone();
        let reply = self.client.heartbeat(Heartbeat { session }).await.map_err(fault_of)?;
        Ok(reply.into_inner())
    }

    pub(crate) fn mesh_serving(&self) -> usize {
        self.has.knowledge.mesh.tasks.values().filter(|task| task.serving).count()
    }

    /// The endpoints that this node may lead traffic to.
    pub(crate) fn serving(&self) -> Vec<TaskId> {
        let networks = self.has.knowledge.networks.values();
        let endpoints = networks.flat_map(|network| &network.endpoints);
        endpoints.filter(|(_, endpoint)| endpoint.serving).map(|(id, _)| id.clone()).collect()
    }
}

pub(crate) async fn web(cluster: &Cluster, replicas: u64) -> ServiceId {
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

pub(crate) async fn scale(cluster: &Cluster, id: &ServiceId, replicas: usize) {
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
