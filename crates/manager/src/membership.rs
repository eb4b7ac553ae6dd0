//! How a machine becomes a node, stays one, and leaves.
//!
//! The only calls that a stranger may make. What costs is limited for each caller, renewals apart
//! from joins; whoever guesses tokens keeps nobody out. A token is compared in constant time.

use crate::callers::caller;
use crate::clock::now;
use crate::dispatch::{Ask, Command, report};
use crate::limits::Callers;
use crate::managers::{Leading, Route};
use crate::signing::Signer;
use ca::JoinToken;
use raft::Sequencer;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use store::{Changes, Tx, View};
use tokio::sync::oneshot;
use tonic::{Request, Response, Status};
use types::{Cluster, Fault, ManagerStatus, Node, NodeId, NodeRole, NodeSpec};
use wire::{
    Done, EnrollReply, EnrollRequest, IssueReply, IssueRequest, LeaveRequest, Membership,
    NumberRequest, Order, Release, RootReply, RootRequest, status_of,
};

/// Nodes that may join from one address within [`WINDOW`].
const JOINS: u32 = 60;
/// Certificates that one node may get within [`WINDOW`].
const RENEWALS: u32 = 10;
const WINDOW: Duration = Duration::from_mins(1);
/// How long the answer to a wrong token takes. An address has few connections with few calls each,
/// so it cannot try many.
const WRONG_TOKEN_PAUSE: Duration = Duration::from_secs(1);
/// The longest address that a manager is found at.
const ADDRESS_MAX: usize = 256;

/// Who gets in, on the manager that leads.
#[derive(Clone, Debug)]
pub(crate) struct Admission {
    sequencer: Sequencer,
    signer: Signer,
    joins: Arc<Callers<IpAddr>>,
}

/// What machines and nodes call.
#[derive(Clone, Debug)]
pub(crate) struct Service {
    leading: Leading,
    route: Arc<Route>,
    admission: Admission,
    renewals: Arc<Callers<NodeId>>,
}

impl Admission {
    pub(crate) fn new(sequencer: Sequencer, signer: Signer) -> Self {
        Self { sequencer, signer, joins: Arc::default() }
    }

    /// The role that a token is for. A wrong one takes a while, and is looked at once more then: a new
    /// one may just not have been known here.
    async fn role_of(&self, token: &str) -> Result<NodeRole, Fault> {
        let known = cluster(&self.sequencer.view())?;
        if let Ok(role) = role_of(&known, token) {
            return Ok(role);
        }
        tokio::time::sleep(WRONG_TOKEN_PAUSE).await;
        let known = cluster(&self.sequencer.view())?;
        role_of(&known, token)
    }

    /// A machine with a token becomes a node.
    pub(crate) async fn join(
        &self,
        request: IssueRequest,
        from: Option<IpAddr>,
    ) -> Result<IssueReply, Fault> {
        let IssueRequest { release, token, csr, availability } = request;
        Release::own().check_node(&release, None)?;
        let role = self.role_of(&token).await?;
        if from.is_some_and(|from| !self.joins.admit(&from, JOINS, WINDOW)) {
            let text = "too many nodes join from this address: try again in a minute";
            return Err(Fault::unavailable(text));
        }
        let node = ca::node_of(&csr);
        let view = self.sequencer.view();
        let reply = self.signer.sign(&view, &csr, (&node, role), now()).await?;
        let new = Node {
            id: node.clone(),
            role,
            spec: NodeSpec { role, availability, ..NodeSpec::default() },
            ..Node::default()
        };
        self.sequencer
            .sequence(move |view: &View, _| {
                let mut tx = Tx::new(view);
                // A request that is repeated, as its answer was lost, makes no second node.
                if view.node(&new.id).is_none() {
                    tx.put_node(new);
                }
                Ok(tx.finish())
            })
            .await?;
        tracing::info!(%node, ?role, "a node has joined");
        Ok(reply)
    }
}

impl Service {
    pub(crate) fn new(leading: Leading, route: Arc<Route>, admission: Admission) -> Self {
        Self { leading, route, admission, renewals: Arc::default() }
    }

    fn caller<T>(&self, request: &Request<T>) -> Result<NodeId, Status> {
        caller(request, &self.leading)
    }

    /// A node that shows its certificate gets a new one, for what it is now.
    async fn renew(&self, request: &Request<IssueRequest>) -> Result<IssueReply, Status> {
        let id = self.caller(request)?;
        let view = self.leading.log.view();
        if !self.renewals.admit(&id, RENEWALS, WINDOW) {
            let text = "this node has renewed its certificate often enough: try again in a minute";
            return Err(status_of(Fault::unavailable(text)));
        }
        let role = view.node(&id).map_or(NodeRole::Worker, |node| node.role);
        let csr = &request.get_ref().csr;
        self.admission.signer.sign(&view, csr, (&id, role), now()).await.map_err(status_of)
    }

    /// Tells a manager its number, by what the newest view comes to.
    async fn numbered(
        &self,
        (node, release, address): (NodeId, Release, String),
        decide: impl FnOnce(&View, &NodeId, String) -> Result<(u64, Changes), Fault> + Send + 'static,
    ) -> Result<Response<EnrollReply>, Status> {
        Release::own().check_node(&release, Some(&node)).map_err(status_of)?;
        if ADDRESS_MAX < address.len() || !address.contains(':') {
            return Err(status_of(Fault::invalid("a manager's address is its host:port")));
        }
        let (sender, given) = oneshot::channel();
        let decide = move |view: &View, _| {
            let (raft_id, changes) = decide(view, &node, address)?;
            // Whoever asked waits for it.
            sender.send(raft_id).ok();
            Ok(changes)
        };
        self.leading.log.sequence(decide).await.map_err(status_of)?;
        let lost = |_| status_of(Fault::unavailable("this manager is stopping"));
        let raft_id = given.await.map_err(lost)?;
        Ok(Response::new(EnrollReply { release: Release::own(), raft_id }))
    }
}

/// A node that is to be a manager gets a number in the log's membership, which no other one ever has.
/// One that asks again has lost what it had, or the answer: it is another member.
pub fn enrolled(view: &View, id: &NodeId, address: String) -> Result<(u64, Changes), Fault> {
    let node = view.node(id).filter(|node| node.spec.role == NodeRole::Manager);
    let is_none = || Fault::forbidden(format!("node {id} is not to be a manager"));
    store::readers::may_manage(view, node.ok_or_else(is_none)?)?;
    let mut cluster = Cluster::clone(&*cluster(view)?);
    cluster.last_raft_id = cluster.last_raft_id.max(raft::FIRST_MEMBER) + 1;
    let raft_id = cluster.last_raft_id;
    let mut tx = Tx::new(view);
    tx.put_cluster(cluster);
    tx.edit_node(id, |node| node.manager = Some(ManagerStatus { raft_id, address }));
    Ok((raft_id, tx.finish()))
}

/// The number of a manager that says that it has this one: 0 where it has none any more, as it was
/// demoted since. Where it has moved, that is noted.
pub fn number(view: &View, id: &NodeId, (own, address): (u64, String)) -> (u64, Changes) {
    let mut tx = Tx::new(view);
    let manager = view.node(id).and_then(|node| node.manager.as_ref());
    let raft_id = manager.map_or(0, |manager| manager.raft_id);
    if manager.is_some_and(|manager| raft_id == own && manager.address != address) {
        tx.edit_node(id, |node| node.manager = Some(ManagerStatus { raft_id, address }));
    }
    (raft_id, tx.finish())
}

pub(crate) fn cluster(view: &View) -> Result<Arc<Cluster>, Fault> {
    view.cluster().cloned().ok_or_else(|| Fault::unavailable("there is no cluster yet"))
}

fn role_of(cluster: &Cluster, token: &str) -> Result<NodeRole, Fault> {
    let wrong = || Fault::forbidden(ca::TOKEN_REFUSED);
    let given = JoinToken::parse(token)?;
    let is = |kept: &str| JoinToken::parse(kept).is_ok_and(|kept| kept.matches(&given));
    // Both are compared, so that the time tells nothing of which one was close.
    let (worker, manager) = (is(&cluster.tokens.worker), is(&cluster.tokens.manager));
    match (worker, manager) {
        (true, _) => Ok(NodeRole::Worker),
        (false, true) => Ok(NodeRole::Manager),
        (false, false) => Err(wrong()),
    }
}

#[tonic::async_trait]
impl Membership for Service {
    async fn root(&self, request: Request<RootRequest>) -> Result<Response<RootReply>, Status> {
        let release = &request.get_ref().release;
        Release::own().check_node(release, None).map_err(status_of)?;
        let cluster = cluster(&self.leading.log.view()).map_err(status_of)?;
        let root = cluster.root_ca.certificate.clone();
        Ok(Response::new(RootReply { release: Release::own(), root }))
    }

    async fn issue(&self, request: Request<IssueRequest>) -> Result<Response<IssueReply>, Status> {
        if request.get_ref().token.is_empty() {
            return self.renew(&request).await.map(Response::new);
        }
        // The leader does as well; but it need not hear of those who guess.
        self.admission.role_of(&request.get_ref().token).await.map_err(status_of)?;
        let from = ca::remote(&request).map(|address| address.ip());
        let order = Order::Join { request: request.into_inner(), from };
        let issued = self.route.order(order).await.map_err(status_of)?.issued;
        issued.map(Response::new).ok_or_else(|| {
            status_of(Fault::internal("the leader has let the machine in and sent no certificate"))
        })
    }

    async fn enroll(
        &self,
        request: Request<EnrollRequest>,
    ) -> Result<Response<EnrollReply>, Status> {
        let node = self.caller(&request)?;
        let EnrollRequest { release, address } = request.into_inner();
        let decide = move |view: &View, id: &NodeId, address| enrolled(view, id, address);
        self.numbered((node, release, address), decide).await
    }

    async fn number(
        &self,
        request: Request<NumberRequest>,
    ) -> Result<Response<EnrollReply>, Status> {
        let node = self.caller(&request)?;
        let NumberRequest { release, raft_id, address } = request.into_inner();
        let decide =
            move |view: &View, id: &NodeId, address| Ok(number(view, id, (raft_id, address)));
        self.numbered((node, release, address), decide).await
    }

    async fn leave(&self, request: Request<LeaveRequest>) -> Result<Response<Done>, Status> {
        let node = self.caller(&request)?;
        let (id, tasks_first) = (node.clone(), request.get_ref().tasks_first);
        let leaves = move |view: &View, now| {
            if tasks_first { report::leaves(view, &id) } else { report::left(view, &id, now) }
        };
        self.leading.log.sequence(leaves).await.map_err(status_of)?;
        if tasks_first {
            return Ok(Response::new(Done {}));
        }
        // From here on it opens no session; the one it has ends.
        let requests = self.leading.requests().map_err(status_of)?;
        if requests.send(Ask::Tell(Command::Left { node })).await.is_err() {
            return Err(status_of(Fault::unavailable("this manager is stopping")));
        }
        Ok(Response::new(Done {}))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use types::{Timestamp, Version};

    #[test]
    fn a_manager_has_its_number_until_it_is_demoted_and_says_where_it_is() {
        let mut tx = Tx::new(&View::default());
        let manager = Some(ManagerStatus { raft_id: 3, address: "m:1".to_owned() });
        tx.put_node(Node { id: "m".into(), manager, ..Node::default() });
        tx.put_node(Node { id: "demoted".into(), ..Node::default() });
        let mut view = View::default();
        view.apply(&tx.finish(), Version(1), Timestamp(1));
        let asks = |id: &str, own, address: &str| number(&view, &id.into(), (own, address.into()));
        assert_eq!(asks("m", 3, "m:1"), (3, Changes::default()));
        assert_eq!(asks("demoted", 2, "d:1"), (0, Changes::default()));
        assert_eq!(asks("m", 2, "m:2"), (3, Changes::default()), "of a number before");
        let (raft_id, changes) = asks("m", 3, "m:2");
        view.apply(&changes, Version(2), Timestamp(2));
        let moved = view.node(&"m".into()).unwrap().manager.clone();
        assert_eq!(moved, Some(ManagerStatus { raft_id, address: "m:2".to_owned() }));
    }
}
