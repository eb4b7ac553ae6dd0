//! A manager that says what the test says, and keeps what a node says.

use super::PATIENCE;
use ca::{Authority, Identity, Peer};
use scope::Scope;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use types::{NodeRole, TaskId, TaskState, TaskStatus, Timestamp};
use wire::{
    Acknowledge, Dispatcher, Done, EnrollReply, EnrollRequest, Heartbeat, HeartbeatReply,
    IssueReply, IssueRequest, LeaveRequest, LogChunk, Membership, NumberRequest, Release, Report,
    RootReply, RootRequest, SessionMessage, SessionRequest, Welcome, dispatcher_server,
    membership_server,
};

pub(crate) const DAY: Duration = Duration::from_hours(24);
pub(crate) const NODE: &str = "worker-node";
/// A log that is asked for under a name that begins so is never read.
pub(crate) const UNREAD: &str = "unread";
/// What a sender may send before it is read, of one log and of one connection.
pub(crate) const WINDOW: u32 = 65_535;
const ROOM: usize = 1024;

/// What a node said.
#[derive(Debug)]
pub(crate) enum Said {
    Acknowledged(u64),
    Heartbeat,
    Reported(TaskId, TaskStatus),
    /// What does not work on the node.
    Trouble(String),
    Log(LogChunk),
    Renews,
    /// It is about to leave.
    Leaves,
    Left,
}

/// An open session.
pub(crate) struct Opened {
    messages: mpsc::Sender<Result<SessionMessage, Status>>,
    /// Its node is about to leave.
    pub(crate) leaving: bool,
}

impl Opened {
    pub(crate) async fn send(&self, message: SessionMessage) {
        self.messages.send(Ok(message)).await.unwrap();
    }
}

pub(crate) struct Desk {
    address: String,
    worker: Identity,
    /// What it says that it is.
    release: Arc<Mutex<Release>>,
    opened: mpsc::Receiver<Opened>,
    said: mpsc::Receiver<Said>,
    hears_farewells: Arc<AtomicU8>,
    _scope: Scope,
}

/// Where nodes say goodbye.
struct Door {
    said: mpsc::Sender<Said>,
    /// 1: farewells; 2: also that tasks go first.
    hears: Arc<AtomicU8>,
}

struct Rpc {
    release: Arc<Mutex<Release>>,
    opened: mpsc::Sender<Opened>,
    said: mpsc::Sender<Said>,
}

impl Desk {
    /// The worker's certificate was signed 10 s ago and holds for so long from then on.
    pub(crate) async fn open(valid_for: Duration) -> Self {
        let root = Authority::create(now()).unwrap();
        let identity = |id: &str, role, valid_for: Duration| {
            let request = Identity::generate().unwrap();
            let authority = Authority::load(&root).unwrap();
            let peer = Peer { node: id.into(), role, cluster: "cluster".into() };
            let signed = now().before(Duration::from_secs(10));
            let certificate = authority.sign(request.csr(), &peer, valid_for, signed).unwrap();
            request.accept(&certificate, &root.certificate).unwrap()
        };
        let manager = identity("manager-node", NodeRole::Manager, DAY);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (opened_sender, opened) = mpsc::channel(ROOM);
        let (said_sender, said) = mpsc::channel(ROOM);
        let hears_farewells = Arc::new(AtomicU8::new(0));
        let door = Door { said: said_sender.clone(), hears: Arc::clone(&hears_farewells) };
        let release = Arc::new(Mutex::new(Release::own()));
        let rpc = Rpc { release: Arc::clone(&release), opened: opened_sender, said: said_sender };
        let server = tonic::transport::Server::builder()
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .add_service(membership_server(door))
            .add_service(dispatcher_server(rpc));
        let mut scope = Scope::new();
        let (acceptor, accepted) = ca::accept(listener, &manager, scope.token()).unwrap();
        scope.spawn("acceptor", acceptor);
        scope.spawn("desk", server.serve_with_incoming(accepted.nodes));
        let worker = identity(NODE, NodeRole::Worker, valid_for);
        Self { address, worker, release, opened, said, hears_farewells, _scope: scope }
    }

    /// From here on this is a manager of another release.
    pub(crate) fn be(&self, release: Release) {
        *self.release.lock().unwrap() = release;
    }

    /// From here on a node may leave.
    pub(crate) fn hear_farewells(&self) {
        self.hears_farewells.store(1, Ordering::Relaxed);
    }

    /// From here on a node may leave, and its tasks before it.
    pub(crate) fn hear_notices(&self) {
        self.hears_farewells.store(2, Ordering::Relaxed);
    }

    pub(crate) fn address(&self) -> String {
        self.address.clone()
    }

    pub(crate) fn worker(&self) -> &Identity {
        &self.worker
    }

    /// Waits for the node to open a session.
    pub(crate) async fn opened(&mut self) -> Opened {
        tokio::time::timeout(PATIENCE, self.opened.recv()).await.expect("a session").unwrap()
    }

    /// Says whether the node has opened another session.
    pub(crate) fn has_another(&mut self) -> bool {
        self.opened.try_recv().is_ok()
    }

    /// Waits until the node says what is waited for.
    pub(crate) async fn until(&mut self, is_it: impl Fn(&Said) -> bool) -> Said {
        let waiting = async {
            loop {
                let said = self.said.recv().await.unwrap();
                if is_it(&said) {
                    return said;
                }
            }
        };
        tokio::time::timeout(PATIENCE, waiting).await.expect("the node says it")
    }

    /// Waits until the node reports a state of a task; no other end may come before.
    pub(crate) async fn until_state(&mut self, id: &TaskId, state: TaskState) -> TaskStatus {
        let is_it = |said: &Said| match said {
            Said::Reported(task, status) => {
                task == id && (status.state == state || status.state.is_terminal())
            }
            _ => false,
        };
        let Said::Reported(_, status) = self.until(is_it).await else { unreachable!() };
        assert_eq!(status.state, state, "{}", status.error);
        status
    }

    /// Waits until something is so.
    pub(crate) async fn patiently(&self, what: &str, is_so: impl Fn() -> bool) {
        let waiting = async {
            while !is_so() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        assert!(tokio::time::timeout(PATIENCE, waiting).await.is_ok(), "never: {what}");
    }
}

#[expect(clippy::disallowed_methods, reason = "certificates need the time of day")]
fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    Timestamp(i64::try_from(since.as_nanos()).unwrap())
}

impl Rpc {
    async fn note<T>(&self, request: &Request<T>, said: Said) {
        let peer = ca::peer(request).expect("the node's certificate");
        assert_eq!(peer.node, NODE.into());
        // The test may be over.
        self.said.send(said).await.ok();
    }
}

#[tonic::async_trait]
impl Dispatcher for Rpc {
    type SessionStream = ReceiverStream<Result<SessionMessage, Status>>;

    async fn session(
        &self,
        request: Request<SessionRequest>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let (sender, messages) = mpsc::channel(ROOM);
        let welcome = Welcome {
            release: self.release.lock().unwrap().clone(),
            session: "session".to_owned(),
            node: NODE.into(),
            heartbeat_millis: 50,
            managers: Vec::new(),
            data_path_port: 4789,
            ..Welcome::default()
        };
        sender.send(Ok(SessionMessage::Welcome(welcome))).await.unwrap();
        let leaving = request.into_inner().leaving;
        self.opened.send(Opened { messages: sender, leaving }).await.ok();
        Ok(Response::new(ReceiverStream::new(messages)))
    }

    async fn heartbeat(
        &self,
        request: Request<Heartbeat>,
    ) -> Result<Response<HeartbeatReply>, Status> {
        self.note(&request, Said::Heartbeat).await;
        Ok(Response::new(HeartbeatReply { next_millis: 1000, ..HeartbeatReply::default() }))
    }

    async fn acknowledge(&self, request: Request<Acknowledge>) -> Result<Response<Done>, Status> {
        let said = Said::Acknowledged(request.get_ref().version);
        self.note(&request, said).await;
        Ok(Response::new(Done {}))
    }

    async fn report(&self, request: Request<Report>) -> Result<Response<Done>, Status> {
        for (task, status) in request.get_ref().statuses.clone() {
            self.note(&request, Said::Reported(task, status)).await;
        }
        if let Some(trouble) = request.get_ref().trouble.clone() {
            self.note(&request, Said::Trouble(trouble)).await;
        }
        Ok(Response::new(Done {}))
    }

    async fn publish_logs(
        &self,
        request: Request<Streaming<LogChunk>>,
    ) -> Result<Response<Done>, Status> {
        let mut chunks = request.into_inner();
        while let Some(chunk) = chunks.message().await? {
            let is_unread = chunk.subscription.starts_with(UNREAD);
            self.said.send(Said::Log(chunk)).await.ok();
            if is_unread {
                std::future::pending::<()>().await;
            }
        }
        Ok(Response::new(Done {}))
    }
}

#[tonic::async_trait]
impl Membership for Door {
    async fn root(&self, _request: Request<RootRequest>) -> Result<Response<RootReply>, Status> {
        Err(Status::unimplemented("root"))
    }

    async fn issue(&self, _request: Request<IssueRequest>) -> Result<Response<IssueReply>, Status> {
        self.said.send(Said::Renews).await.ok();
        Err(Status::unimplemented("issue"))
    }

    async fn enroll(
        &self,
        _request: Request<EnrollRequest>,
    ) -> Result<Response<EnrollReply>, Status> {
        Err(Status::unimplemented("enroll"))
    }

    async fn number(
        &self,
        _request: Request<NumberRequest>,
    ) -> Result<Response<EnrollReply>, Status> {
        Err(Status::unimplemented("number"))
    }

    async fn leave(&self, request: Request<LeaveRequest>) -> Result<Response<Done>, Status> {
        let tasks_first = request.get_ref().tasks_first;
        if self.hears.load(Ordering::Relaxed) < if tasks_first { 2 } else { 1 } {
            return Err(Status::unimplemented("leave"));
        }
        self.said.send(if tasks_first { Said::Leaves } else { Said::Left }).await.ok();
        Ok(Response::new(Done {}))
    }
}
