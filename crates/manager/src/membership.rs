//! How a machine becomes a node, stays one, and leaves.
//!
//! The only calls that a stranger may make, so their number is limited for each caller. A token is
//! compared in constant time.

use crate::clock::{RandomIds, now};
use crate::dispatch::{Attempts, Command, authenticated, report};
use ca::{Authority, JoinToken};
use raft::Sequencer;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use store::{Tx, View};
use tokio::sync::mpsc;
use tonic::{Request, Response, Status};
use types::{Cluster, Fault, Node, NodeId, NodeRole, NodeSpec};
use wire::{
    Done, IssueReply, IssueRequest, LeaveRequest, Membership, RootReply, RootRequest, status_of,
};

/// Certificates that one address may ask for within [`WINDOW`].
const ATTEMPTS: u32 = 60;
const WINDOW: Duration = Duration::from_mins(1);
/// Addresses that are counted at a time. Beyond, nobody new gets in until old ones are forgotten.
const CALLERS: usize = 4096;
/// The longest signing request.
const REQUEST_MAX: usize = 16 * 1024;

#[derive(Clone, Debug)]
pub(crate) struct Entrance {
    sequencer: Sequencer,
    commands: mpsc::Sender<Command>,
    callers: Arc<Mutex<BTreeMap<IpAddr, Attempts>>>,
}

impl Entrance {
    pub(crate) fn new(sequencer: Sequencer, commands: mpsc::Sender<Command>) -> Self {
        Self { sequencer, commands, callers: Arc::default() }
    }

    fn admit<T>(&self, request: &Request<T>) -> Result<(), Fault> {
        let Some(address) = ca::remote(request).map(|address| address.ip()) else {
            return Ok(());
        };
        let mut callers = self.callers.lock().unwrap_or_else(PoisonError::into_inner);
        if callers.len() >= CALLERS {
            callers.retain(|_, attempts| !attempts.is_over(WINDOW));
        }
        let known = callers.contains_key(&address) || callers.len() < CALLERS;
        if known && callers.entry(address).or_default().admit(ATTEMPTS, WINDOW) {
            return Ok(());
        }
        Err(Fault::unavailable("too many attempts to join: try again in a minute"))
    }

    /// A machine with a token becomes a node.
    async fn join(&self, request: IssueRequest) -> Result<IssueReply, Fault> {
        let IssueRequest { token, csr, availability } = request;
        let cluster = cluster(&self.sequencer.view())?;
        let role = role_of(&cluster, &token)?;
        match role {
            NodeRole::Worker => {}
            NodeRole::Manager => {
                return Err(Fault::not_implemented(
                    "joining as a manager (this version runs one manager)",
                ));
            }
        }
        let node = NodeId::draw(&mut RandomIds);
        let reply = sign(&cluster, &csr, &node, role)?;
        let new = Node {
            id: node.clone(),
            role,
            spec: NodeSpec { role, availability, ..NodeSpec::default() },
            ..Node::default()
        };
        self.sequencer
            .sequence(move |view: &View, _| {
                let mut tx = Tx::new(view);
                tx.put_node(new);
                Ok(tx.finish())
            })
            .await?;
        tracing::info!(%node, "a node has joined");
        Ok(reply)
    }
}

fn cluster(view: &View) -> Result<Arc<Cluster>, Fault> {
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

fn sign(cluster: &Cluster, csr: &str, node: &NodeId, role: NodeRole) -> Result<IssueReply, Fault> {
    if csr.len() > REQUEST_MAX {
        return Err(Fault::invalid("the certificate signing request is too long"));
    }
    let authority = Authority::load(&cluster.root_ca).map_err(|error| {
        tracing::error!(%error, "cannot load the cluster's root CA");
        Fault::internal("cannot load the cluster's root CA")
    })?;
    let validity = cluster.spec.certificate_validity;
    let certificate = authority
        .sign(csr, node, role, &cluster.id, validity, now())
        .map_err(|error| Fault::invalid(format!("cannot sign the certificate: {error}")))?;
    Ok(IssueReply {
        node: node.clone(),
        role,
        certificate,
        root: cluster.root_ca.certificate.clone(),
    })
}

#[tonic::async_trait]
impl Membership for Entrance {
    async fn root(&self, request: Request<RootRequest>) -> Result<Response<RootReply>, Status> {
        self.admit(&request).map_err(status_of)?;
        let cluster = cluster(&self.sequencer.view()).map_err(status_of)?;
        Ok(Response::new(RootReply { root: cluster.root_ca.certificate.clone() }))
    }

    async fn issue(&self, request: Request<IssueRequest>) -> Result<Response<IssueReply>, Status> {
        self.admit(&request).map_err(status_of)?;
        if request.get_ref().token.is_empty() {
            // A renewal: the old certificate speaks for the node.
            let view = self.sequencer.view();
            let node = authenticated(&request, &view)?;
            let role = ca::peer(&request).map_or(NodeRole::Worker, |peer| peer.role);
            let cluster = cluster(&view).map_err(status_of)?;
            let reply = sign(&cluster, &request.get_ref().csr, &node, role);
            return reply.map(Response::new).map_err(status_of);
        }
        self.join(request.into_inner()).await.map(Response::new).map_err(status_of)
    }

    async fn leave(&self, request: Request<LeaveRequest>) -> Result<Response<Done>, Status> {
        let node = authenticated(&request, &self.sequencer.view())?;
        let id = node.clone();
        self.sequencer
            .sequence(move |view: &View, now| report::left(view, &id, now))
            .await
            .map_err(status_of)?;
        // From here on it opens no session; the one it has ends.
        if self.commands.send(Command::Left { node }).await.is_err() {
            return Err(status_of(Fault::unavailable("this manager is stopping")));
        }
        Ok(Response::new(Done {}))
    }
}
