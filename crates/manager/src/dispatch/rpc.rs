//! What nodes call.
//!
//! A node is who its certificate says; what it says of others is not heard.

use super::sessions::QUEUE;
use super::{Command, report};
use crate::Error;
use crate::clock::{RandomIds, uptime};
use crate::logs::{Reading, Sinks, admitted};
use crate::membership::Entrance;
use ca::Identity;
use raft::Sequencer;
use std::time::Duration;
use store::View;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::service::interceptor::InterceptedService;
use tonic::{Request, Response, Status, Streaming};
use types::{Fault, IdSource, NodeId, Timestamp};
use wire::{
    Acknowledge, Dispatcher, Done, Heartbeat, HeartbeatReply, LogChunk, Report, SessionMessage,
    SessionRequest, dispatcher_server, membership_server, status_of,
};

/// For the loop to take a command and to answer it.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// Calls of one connection at a time.
const CALLS: u32 = 1024;
/// What a node may send in one call before it is read, and on its connection: logs that no client
/// reads must not hold up its heartbeats.
const CALL_WINDOW: u32 = 64 << 10;
const CONNECTION_WINDOW: u32 = 16 << 20;
/// For open calls to end when the manager stops.
const FAREWELL: Duration = Duration::from_secs(2);
/// What a caller without a certificate is told.
const STRANGER: &str = "this call needs a certificate of the cluster";
/// Statuses in one report; a node has fewer tasks.
const STATUSES: usize = 10_000;

#[derive(Clone, Debug)]
pub(crate) struct Rpc {
    sequencer: Sequencer,
    commands: mpsc::Sender<Command>,
    sinks: Sinks,
}

impl Rpc {
    pub(crate) fn new(sequencer: Sequencer, commands: mpsc::Sender<Command>, sinks: Sinks) -> Self {
        Self { sequencer, commands, sinks }
    }

    async fn tell(&self, command: Command) -> Result<(), Status> {
        let told = tokio::time::timeout(ANSWER_MAX, self.commands.send(command)).await;
        match told {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(stopping()),
        }
    }
}

impl Rpc {
    /// Writes down that a node is there; a disk that is slow or full holds up no node that is
    /// known to be there already.
    async fn register(&self, node: &NodeId, request: SessionRequest) -> Result<(), Fault> {
        let view = self.sequencer.view();
        if report::registered(&view, node, &request, self.sequencer.now())?.is_empty() {
            return Ok(());
        }
        let id = node.clone();
        self.sequencer
            .sequence(move |view: &View, now| report::registered(view, &id, &request, now))
            .await?;
        Ok(())
    }
}

fn stopping() -> Status {
    status_of(Fault::unavailable("this manager is stopping or overloaded"))
}

/// Turns away whoever has no certificate before anything that they send is read.
fn known(request: Request<()>) -> Result<Request<()>, Status> {
    match ca::peer(&request) {
        Some(_) => Ok(request),
        None => Err(status_of(Fault::forbidden(STRANGER))),
    }
}

/// The node that calls: of this cluster, and not removed.
pub(crate) fn authenticated<T>(request: &Request<T>, view: &View) -> Result<NodeId, Status> {
    let refused = |text: &str| Err(status_of(Fault::forbidden(text)));
    let Some(peer) = ca::peer(request) else {
        return refused(STRANGER);
    };
    if view.cluster().is_none_or(|cluster| cluster.id != peer.cluster) {
        return refused("the certificate is of another cluster");
    }
    if view.node(&peer.node).is_none() {
        return Err(status_of(Fault::not_found(format!("node {} not found", peer.node))));
    }
    Ok(peer.node)
}

/// Serves nodes until the token is cancelled.
pub(crate) fn serve(
    rpc: Rpc,
    listener: TcpListener,
    identity: &Identity,
    token: CancellationToken,
) -> Result<impl Future<Output = Result<(), tonic::transport::Error>> + Send + 'static, Error> {
    let tls = ca::tls::server_config(identity).map_err(Error::Identity)?;
    let incoming = ca::incoming(listener, tls);
    let entrance = Entrance::new(rpc.sequencer.clone(), rpc.commands.clone());
    let server = tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(Duration::from_secs(10)))
        .http2_keepalive_timeout(Some(Duration::from_secs(10)))
        .max_concurrent_streams(Some(CALLS))
        .initial_stream_window_size(Some(CALL_WINDOW))
        .initial_connection_window_size(Some(CONNECTION_WINDOW))
        .add_service(membership_server(entrance))
        .add_service(InterceptedService::new(dispatcher_server(rpc), known));
    Ok(async move {
        let stop = token.clone();
        let serving = server.serve_with_incoming_shutdown(incoming, stop.cancelled_owned());
        let late = async {
            token.cancelled().await;
            tokio::time::sleep(FAREWELL).await;
        };
        tokio::select! {
            ended = serving => ended,
            () = late => Ok(()),
        }
    })
}

#[tonic::async_trait]
impl Dispatcher for Rpc {
    type SessionStream = ReceiverStream<Result<SessionMessage, Status>>;

    async fn session(
        &self,
        request: Request<SessionRequest>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let node = authenticated(&request, &self.sequencer.view())?;
        // Whatever comes of it, the node is there.
        self.tell(Command::Attempt { node: node.clone() }).await?;
        self.register(&node, request.into_inner()).await.map_err(status_of)?;
        let session = format!("{:032x}", RandomIds.next_bits());
        tracing::info!(%node, session, "session opens");
        let (sink, messages) = mpsc::channel(QUEUE);
        self.tell(Command::Open { node, session, sink }).await?;
        Ok(Response::new(ReceiverStream::new(messages)))
    }

    async fn heartbeat(
        &self,
        request: Request<Heartbeat>,
    ) -> Result<Response<HeartbeatReply>, Status> {
        let node = authenticated(&request, &self.sequencer.view())?;
        let (reply, answer) = oneshot::channel();
        let session = request.into_inner().session;
        self.tell(Command::Heartbeat { node, session, reply }).await?;
        let next = answer.await.map_err(|_dropped| stopping())?.map_err(status_of)?;
        Ok(Response::new(HeartbeatReply { next_millis: super::millis(next) }))
    }

    async fn acknowledge(&self, request: Request<Acknowledge>) -> Result<Response<Done>, Status> {
        let node = authenticated(&request, &self.sequencer.view())?;
        let Acknowledge { session, version } = request.into_inner();
        self.tell(Command::Acknowledge { node, session, version }).await?;
        Ok(Response::new(Done {}))
    }

    async fn report(&self, request: Request<Report>) -> Result<Response<Done>, Status> {
        let node = authenticated(&request, &self.sequencer.view())?;
        let report = request.into_inner();
        if report.statuses.len() > STATUSES {
            let fault = format!("a report holds at most {STATUSES} tasks");
            return Err(status_of(Fault::invalid(fault)));
        }
        self.sequencer
            .sequence(move |view: &View, now| Ok(report::reported(view, &node, report, now)))
            .await
            .map_err(status_of)?;
        Ok(Response::new(Done {}))
    }

    async fn publish_logs(
        &self,
        request: Request<Streaming<LogChunk>>,
    ) -> Result<Response<Done>, Status> {
        let node = authenticated(&request, &self.sequencer.view())?;
        let mut chunks = request.into_inner();
        // Where the call breaks off, this goes with it.
        let mut open: Option<Reading> = None;
        while let Some(chunk) = chunks.message().await? {
            // One call carries one subscription's part.
            let name = || Reading::new(&self.sinks, &chunk.subscription, &node);
            let name = open.get_or_insert_with(name).name();
            let Some(part) = self.sinks.part(name, &node) else { break };
            let (end, error) = (chunk.end, chunk.error.clone());
            for line in admitted(&part, chunk.lines) {
                if part.sink.send(Ok(line)).await.is_err() {
                    return Ok(Response::new(Done {}));
                }
            }
            if !error.is_empty() {
                // The client may have gone; then the next line finds out.
                drop(part.sink.send(Err(Fault::unavailable(error))).await);
            }
            if end {
                let part = open.take().map(Reading::end).unwrap_or_default();
                self.tell(Command::LogsEnded { part }).await?;
                break;
            }
        }
        Ok(Response::new(Done {}))
    }
}

/// Attempts of one caller within a time.
#[derive(Debug, Default)]
pub(crate) struct Attempts {
    since: Timestamp,
    count: u32,
}

impl Attempts {
    /// Says whether one more is fine: `max` within `window`.
    pub(crate) fn admit(&mut self, max: u32, window: Duration) -> bool {
        let now = uptime();
        if now.since(self.since) > window {
            *self = Self { since: now, count: 0 };
        }
        self.count += 1;
        self.count <= max
    }

    /// Says whether nothing of it matters any more.
    pub(crate) fn is_over(&self, window: Duration) -> bool {
        uptime().since(self.since) > window
    }
}
