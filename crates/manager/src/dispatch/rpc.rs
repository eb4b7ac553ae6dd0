//! What nodes call.
//!
//! A node is who its certificate says; what it says of others is not heard.

use super::stream::{Messages, stream};
use super::{Ask, Command, SessionId, report};
use crate::callers::caller;
use crate::clock::RandomIds;
use crate::find;
use crate::limits::{Busy, Write};
use crate::logs::{Reading, Sinks, admitted};
use crate::managers::Leading;
use std::time::Duration;
use store::View;
use tokio::sync::oneshot;
use tonic::{Request, Response, Status, Streaming};
use types::{Fault, IdSource, NodeId};
use wire::{
    Acknowledge, Dispatcher, Done, Heartbeat, HeartbeatReply, LogChunk, Release, Report,
    SessionRequest, elsewhere, status_of,
};

/// For the loop to take a command and to answer it.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// Statuses in one report.
const STATUSES: usize = 10_000;
/// Bytes of a release's version that are told to others.
const VERSION_MAX: usize = 64;

#[derive(Clone, Debug)]
pub(crate) struct Rpc {
    leading: Leading,
    sinks: Sinks,
    busy: Busy,
}

impl Rpc {
    pub(crate) fn new(leading: Leading, sinks: Sinks) -> Self {
        Self { leading, sinks, busy: Busy::default() }
    }

    fn caller<T>(&self, request: &Request<T>) -> Result<NodeId, Status> {
        caller(request, &self.leading)
    }

    /// The node that opens a session. It may know no other manager than this one: where this one does
    /// not lead, it says where all are, to nodes of the cluster (`server::quota`).
    fn opener<T>(&self, request: &Request<T>) -> Result<NodeId, Status> {
        if self.leading.check().is_err() {
            let view = self.leading.log.view();
            let leader = self.leading.log.leadership().borrow().leader;
            let leader = leader.and_then(|number| find::manager(&view, number)?.manager.as_ref());
            return Err(elsewhere(leader.map(|it| &it.address), &find::addresses(&view)));
        }
        self.caller(request)
    }

    async fn ask(&self, request: Ask) -> Result<(), Status> {
        let requests = self.leading.requests().map_err(status_of)?;
        match tokio::time::timeout(ANSWER_MAX, requests.send(request)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(stopping()),
        }
    }

    async fn tell(&self, command: Command) -> Result<(), Status> {
        self.ask(Ask::Tell(command)).await
    }

    /// A node is heard of in a session. What it says in one that is over may be older than what was
    /// heard since.
    async fn hear(&self, node: &NodeId, session: String) -> Result<HeartbeatReply, Status> {
        let (reply, answer) = oneshot::channel();
        let (node, session) = (node.clone(), session.into());
        self.ask(Ask::Heartbeat { node, session, reply }).await?;
        answer.await.map_err(|_dropped| stopping())?.map_err(status_of)
    }
}

impl Rpc {
    /// Writes down that a node is there, or why it is refused; a disk that is slow or full holds up
    /// no node that is known to be there already.
    async fn register(
        &self,
        node: &NodeId,
        request: SessionRequest,
        known: Result<(), Fault>,
    ) -> Result<Write, Fault> {
        let one = self.busy.enter(node)?;
        if let Err(fault) = known {
            // It cannot follow what it would be told, so for the cluster it is not there.
            self.note_refused(node.clone(), &fault).await;
            return Err(fault);
        }
        let view = self.leading.log.view();
        if report::registered(&view, node, &request, self.leading.log.now())?.is_empty() {
            return Ok(one);
        }
        let id = node.clone();
        self.leading
            .log
            .sequence(move |view: &View, now| report::registered(view, &id, &request, now))
            .await?;
        Ok(one)
    }

    /// Lets users see why a node is not there.
    async fn note_refused(&self, node: NodeId, fault: &Fault) {
        let trouble = fault.message.clone();
        if report::refused(&self.leading.log.view(), &node, trouble.clone()).is_empty() {
            return;
        }
        tracing::warn!(%node, %fault, "a node is refused");
        let why = move |view: &View, _| Ok(report::refused(view, &node, trouble));
        if let Err(fault) = self.leading.log.sequence(why).await {
            tracing::warn!(%fault, "cannot note why");
        }
    }
}

/// Says why a node of this release is refused, with as much as fits of what it calls itself.
fn check_release(release: &Release, node: &NodeId) -> Result<(), Fault> {
    let mut release = release.clone();
    release.version.truncate(release.version.floor_char_boundary(VERSION_MAX));
    Release::own().check_node(&release, Some(node))
}

fn stopping() -> Status {
    status_of(Fault::unavailable("this manager is stopping or overloaded"))
}

#[tonic::async_trait]
impl Dispatcher for Rpc {
    type SessionStream = Messages;

    async fn session(
        &self,
        request: Request<SessionRequest>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let node = self.opener(&request)?;
        let request = request.into_inner();
        let known = check_release(&request.release, &node);
        if known.is_ok() {
            // Whatever comes of it, the node is there.
            self.tell(Command::Attempt { node: node.clone() }).await?;
        }
        let _one = self.register(&node, request, known).await.map_err(status_of)?;
        let session = SessionId::from(format!("{:032x}", RandomIds.next_bits()));
        tracing::info!(%node, %session, "session opens");
        let (sink, messages) = stream();
        self.ask(Ask::Open { node, session, sink }).await?;
        Ok(Response::new(messages))
    }

    async fn heartbeat(
        &self,
        request: Request<Heartbeat>,
    ) -> Result<Response<HeartbeatReply>, Status> {
        let node = self.caller(&request)?;
        self.hear(&node, request.into_inner().session).await.map(Response::new)
    }

    async fn acknowledge(&self, request: Request<Acknowledge>) -> Result<Response<Done>, Status> {
        let node = self.caller(&request)?;
        let Acknowledge { session, version } = request.into_inner();
        let session = session.into();
        self.tell(Command::Acknowledge { node, session, version }).await?;
        Ok(Response::new(Done {}))
    }

    async fn report(&self, request: Request<Report>) -> Result<Response<Done>, Status> {
        let node = self.caller(&request)?;
        let _one = self.busy.enter(&node).map_err(status_of)?;
        let report = request.into_inner();
        if report.statuses.len() > STATUSES {
            let fault = format!("a report holds at most {STATUSES} tasks");
            return Err(status_of(Fault::invalid(fault)));
        }
        self.hear(&node, report.session.clone()).await?;
        self.leading
            .log
            .sequence(move |view: &View, now| Ok(report::reported(view, &node, report, now)))
            .await
            .map_err(status_of)?;
        Ok(Response::new(Done {}))
    }

    async fn publish_logs(
        &self,
        request: Request<Streaming<LogChunk>>,
    ) -> Result<Response<Done>, Status> {
        let node = self.caller(&request)?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::managers;
    use scope::Scope;
    use store::Tx;
    use types::Node;

    fn refused(version: &str) -> (SessionRequest, Result<(), Fault>) {
        let release = Release { protocol: u32::MAX, oldest: u32::MAX, version: version.to_owned() };
        let known = check_release(&release, &"n".into());
        let request = SessionRequest {
            release,
            description: types::NodeDescription::default(),
            address: [127, 0, 0, 1].into(),
            data_path_address: None,
            leaving: false,
        };
        (request, known)
    }

    #[tokio::test]
    async fn what_a_node_writes_by_being_refused_is_limited() {
        let (mut scope, dir) = (Scope::new(), tempfile::tempdir().unwrap());
        let log = raft::Config {
            reserve_bytes: 0,
            ..raft::Config::new(dir.path().join("raft"), raft::Key::draw())
        };
        let sequencer = raft::open(log, raft::Alone, &mut scope).await.unwrap();
        let node = |view: &View, _| {
            let mut tx = Tx::new(view);
            tx.put(Node { id: "n".into(), ..Node::default() });
            Ok(tx.finish())
        };
        sequencer.sequence(node).await.unwrap();
        let (_publish, leading) = managers::Term::channel(sequencer.clone());
        let rpc = Rpc::new(leading, Sinks::default());
        let trouble = || sequencer.view().node(&"n".into()).unwrap().trouble.clone();

        let (request, known) = refused(&"9".repeat(100_000));
        let fault = rpc.register(&"n".into(), request, known).await.unwrap_err();
        assert!(
            fault.kind == types::FaultKind::Incompatible && fault.message.len() < 1024,
            "{fault}"
        );
        assert_eq!(trouble(), fault.message);

        let writes = [rpc.busy.enter(&"n".into()).unwrap(), rpc.busy.enter(&"n".into()).unwrap()];
        let (request, known) = refused("10");
        let busy = rpc.register(&"n".into(), request, known).await.unwrap_err();
        assert!(busy.message.contains("writes under way"), "{busy}");
        assert_eq!(trouble(), fault.message);
        drop(writes);
        scope.cancel();
        scope.join().await.unwrap();
    }
}
