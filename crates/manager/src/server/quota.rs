//! How much one node may have under way at this manager, over all of its connections.
//!
//! A message is read whole before anybody looks at it, so whoever is no node of the cluster any more is
//! turned away before that. What a node can make the manager hold is its calls at a time, and the bytes
//! of their messages (`msgpack::decode_sent` keeps them at a few times as much in memory): short ones
//! come with the call, long ones count against the node's quota. A node that goes beyond is told so, and takes nothing from
//! others. Logs have a quota of their own, and wait for it: a client that does not read holds up other
//! logs of that node, and neither heartbeats nor reports. Sessions have one, too: what a node does not
//! read of a session is kept until its connection ends, also where another one has taken its place.

use super::framing::Reader;
use crate::callers;
use ca::{Connection, Peer};
use http::{Request, Response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::{Future, ready};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use store::View;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::sync::PollSemaphore;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{Bytes, Service};
use tonic::server::NamedService;
use types::{Fault, NodeId};
use wire::{MESSAGE_LIMIT, status_of};

/// Calls of one node at a time that carry logs: as many as it may have connections.
const LOGS: usize = 128;
/// Its sessions at a time. An honest node has one, and those of broken connections that nobody has
/// noticed yet.
const SESSIONS: usize = 16;
/// Its other calls at a time. An honest node has a handful.
const OTHERS: usize = 64;
/// Bytes of a message that comes with its call.
const SHORT: usize = 64 << 10;
/// Bytes of longer messages: of logs, and of all others.
const BYTES: usize = 32 << 20;

/// What a call is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Session,
    Logs,
    Other,
}

impl Kind {
    fn of(path: &str) -> Self {
        match path.rsplit('/').next() {
            Some("Session") => Self::Session,
            Some("PublishLogs") => Self::Logs,
            _ => Self::Other,
        }
    }

    fn calls(self) -> usize {
        match self {
            Self::Session => SESSIONS,
            Self::Logs => LOGS,
            Self::Other => OTHERS,
        }
    }
}

/// The quotas of the nodes that have a call under way. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Quotas(Arc<Mutex<BTreeMap<(NodeId, Kind), Quota>>>);

#[derive(Debug)]
struct Quota {
    calls: usize,
    bytes: Arc<Semaphore>,
}

/// A call under way; it is over when this is dropped.
#[derive(Debug)]
struct Call {
    quotas: Quotas,
    key: (NodeId, Kind),
    bytes: Arc<Semaphore>,
    /// For the message that is being read or dealt with.
    held: Mutex<Option<OwnedSemaphorePermit>>,
}

impl Quotas {
    fn enter(&self, node: &NodeId, kind: Kind) -> Result<Call, Fault> {
        let mut quotas = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (node.clone(), kind);
        let fresh = || Quota { calls: 0, bytes: Arc::new(Semaphore::new(BYTES)) };
        let quota = quotas.entry(key.clone()).or_insert_with(fresh);
        let max = kind.calls();
        if quota.calls >= max {
            let fault =
                format!("node {node} has {max} calls under way at this manager: wait for some");
            return Err(Fault::unavailable(fault));
        }
        quota.calls += 1;
        let bytes = Arc::clone(&quota.bytes);
        Ok(Call { quotas: self.clone(), key, bytes, held: Mutex::default() })
    }
}

impl Call {
    fn hold(&self, permit: Option<OwnedSemaphorePermit>) {
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = permit;
    }

    fn too_much(&self) -> Status {
        let (node, max) = (&self.key.0, BYTES >> 20);
        status_of(Fault::unavailable(format!(
            "node {node} has messages of {max} MiB under way at this manager: send one after the other"
        )))
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let mut quotas = self.quotas.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(quota) = quotas.get_mut(&self.key) {
            quota.calls -= 1;
            if quota.calls == 0 {
                quotas.remove(&self.key);
            }
        }
    }
}

/// A service for nodes of the cluster alone, which keeps each within its quota. Strangers are limited
/// by their connections.
#[derive(Clone, Debug)]
pub(crate) struct Limited<S> {
    pub(crate) service: S,
    pub(crate) quotas: Quotas,
    pub(crate) views: watch::Receiver<View>,
}

impl<S> Limited<S> {
    /// Begins a call of a node, before anything of its body is read.
    fn enter(&self, peer: &Peer, path: &str) -> Result<Arc<Call>, Fault> {
        let view = self.views.borrow();
        // A manager that does not know the cluster yet says by itself that it does not lead.
        if view.cluster().is_some() {
            callers::check(peer, &view)?;
        }
        self.quotas.enter(&peer.node, Kind::of(path)).map(Arc::new)
    }
}

impl<S: NamedService> NamedService for Limited<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<Request<Body>> for Limited<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.service.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let connection = request.extensions().get::<Connection>();
        let Some(peer) = connection.and_then(|connection| connection.peer.as_ref()) else {
            return Box::pin(self.service.call(request));
        };
        let call = match self.enter(peer, request.uri().path()) {
            Ok(call) => call,
            Err(fault) => return Box::pin(ready(Ok(status_of(fault).into_http()))),
        };
        let within = Arc::clone(&call);
        let answer = self.service.call(request.map(|body| Body::new(Messages::new(body, within))));
        Box::pin(async move {
            let answer = answer.await;
            answer.map(|answer| answer.map(|body| Body::new(Answer { body, _call: call })))
        })
    }
}

/// What a call is answered with: it is under way until all of that is sent.
struct Answer {
    body: Body,
    _call: Arc<Call>,
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The messages of a call. The bytes of a long one are let in once the quota has all of it left.
struct Messages {
    body: Body,
    call: Arc<Call>,
    place: Reader,
    quota: PollSemaphore,
    /// Bytes that begin a message for which too little is left yet, and its length.
    waiting: Option<(Frame<Bytes>, u32)>,
}

impl Messages {
    fn new(body: Body, call: Arc<Call>) -> Self {
        let quota = PollSemaphore::new(Arc::clone(&call.bytes));
        Self { body, call, place: Reader::default(), quota, waiting: None }
    }

    /// Takes a message out of the quota. The one before it has been dealt with, or is about to be.
    fn poll_quota(&mut self, cx: &mut Context<'_>, len: u32) -> Poll<Result<(), Status>> {
        let permit = if self.call.key.1 == Kind::Logs {
            ready!(self.quota.poll_acquire_many(cx, len))
        } else {
            Arc::clone(&self.call.bytes).try_acquire_many_owned(len).ok()
        };
        let taken = permit.ok_or_else(|| self.call.too_much());
        Poll::Ready(taken.map(|permit| self.call.hold(Some(permit))))
    }
}

impl HttpBody for Messages {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.waiting.is_none() {
            let frame = match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => frame,
                ended => return Poll::Ready(ended),
            };
            let begun = frame.data_ref().and_then(|data| self.place.pass(data));
            match begun.filter(|len| *len <= MESSAGE_LIMIT) {
                Some(len) => {
                    self.call.hold(None);
                    let len = u32::try_from(len).ok().filter(|_| SHORT < len);
                    self.waiting = Some((frame, len.unwrap_or_default()));
                }
                // It goes on, or is too long and refused by its reader.
                None => return Poll::Ready(Some(Ok(frame))),
            }
        }
        let len = self.waiting.as_ref().map_or(0, |(_, len)| *len);
        let taken = ready!(self.poll_quota(cx, len));
        let frame = self.waiting.take().map(|(frame, _)| frame);
        Poll::Ready(frame.map(|frame| taken.map(|()| frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.waiting.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use store::Tx;
    use types::{Cluster, Node, NodeRole, Timestamp, Version};

    /// Answers at once with what never ends.
    #[derive(Clone)]
    struct Endless;

    impl Service<Request<Body>> for Endless {
        type Response = Response<Body>;
        type Error = Infallible;
        type Future = std::future::Ready<Result<Response<Body>, Infallible>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: Request<Body>) -> Self::Future {
            let nothing = tokio_stream::pending::<Result<Frame<Bytes>, Infallible>>();
            ready(Ok(Response::new(Body::new(http_body_util::StreamBody::new(nothing)))))
        }
    }

    #[tokio::test]
    async fn a_session_is_under_way_until_all_of_it_is_sent() {
        let mut tx = Tx::new(&View::default());
        tx.put_cluster(Cluster { id: "c".into(), ..Cluster::default() });
        tx.put_node(Node { id: "n".into(), ..Node::default() });
        let mut view = View::default();
        view.apply(&tx.finish(), Version(1), Timestamp(1));
        let (_publish, views) = watch::channel(view);
        let mut limited = Limited { service: Endless, quotas: Quotas::default(), views };
        let mut open = async |node: &str| {
            let peer = Peer { node: node.into(), role: NodeRole::Worker, cluster: "c".into() };
            let remote = ([127, 0, 0, 1], 1).into();
            let connection = Connection { peer: Some(peer), remote };
            let request = Request::post("/skep.Dispatcher/Session").extension(connection);
            limited.call(request.body(Body::empty()).unwrap()).await.unwrap()
        };
        let mut sessions = Vec::new();
        for _ in 0..SESSIONS {
            sessions.push(open("n").await);
        }
        let is_refused =
            |answer: &Response<Body>| Status::from_header_map(answer.headers()).is_some();
        assert!(!sessions.iter().any(is_refused));
        assert!(is_refused(&open("n").await));
        sessions.pop();
        assert!(!is_refused(&open("n").await));
        assert!(is_refused(&open("another").await), "it is no node of the cluster");
    }

    #[test]
    fn a_node_has_so_many_calls_at_a_time_and_others_have_theirs() {
        let (quotas, node) = (Quotas::default(), NodeId::from("n"));
        let calls: Vec<Call> =
            (0..OTHERS).map(|_| quotas.enter(&node, Kind::Other).unwrap()).collect();
        let refused = quotas.enter(&node, Kind::Other).unwrap_err();
        assert!(refused.message.contains("node n has 64 calls under way"), "{}", refused.message);
        assert!(quotas.enter(&node, Kind::Logs).is_ok());
        assert!(quotas.enter(&"other".into(), Kind::Other).is_ok());
        drop(calls);
        assert!(quotas.enter(&node, Kind::Other).is_ok());
        assert!(quotas.0.lock().unwrap().is_empty());
    }
}
