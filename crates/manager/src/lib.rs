//! The cluster half: turns what users want into tasks on nodes, and tells nodes what they should
//! have.
//!
//! It knows nothing of containers or kernels, and of nodes only what they say by `wire`. All it
//! decides is decided elsewhere and pure: `planner` (tasks), [`assign`] (what a node should have),
//! [`liveness`] (which nodes are there). Start with [`Manager`], which is what the API calls, then
//! `plan` and [`dispatch`], the two loops.
//!
//! Invariants: every write is a closure that the sequencer runs on the newest view, so no two
//! writers can disagree; a task is said to be withdrawn only when every node that may still lead
//! traffic to it has said otherwise.

pub mod assign;
pub mod backup;
pub mod bootstrap;
mod clock;
pub mod control;
pub mod dispatch;
mod events;
pub mod find;
pub mod liveness;
mod logs;
pub mod managers;
mod membership;
mod own;
mod plan;
pub mod recovery;
mod signing;
mod withdrawal;

pub use bootstrap::{First, bootstrap};
pub use clock::Uptime;
pub use control::cluster::pin_external_cas;
pub use control::file::StoredFile;
pub use events::EventStream;
pub use logs::LogStream;
pub use managers::Peers;
pub use membership::{enrolled, number};
pub use raft::{LogContent, LogEntry};
pub use recovery::{Survivor, go_on_alone};
pub use wire::{LogSelector, Rotate};

use ca::{Identity, Refusals};
use managers::{Orders, Route, Term, roles};
use raft::Sequencer;
use scope::Scope;
use signing::Signer;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use store::View;
use tokio::sync::watch;
use types::{
    ClusterSpec, Fault, FileSpec, GivenFile, ManagerStatus, NetworkId, NetworkSpec, NodeId,
    NodeSpec, ServiceId, ServiceSpec, Timestamp, Version,
};
use wire::{LogOptions, Order, OrderReply};

/// What a manager must be told.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where nodes and managers reach this manager.
    pub listen: SocketAddr,
    /// The address (`host:port`) that they are told.
    pub address: String,
}

/// Why a manager cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot listen for nodes on {address}: is another manager running here?")]
    Listen {
        address: SocketAddr,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot use this node's certificate")]
    Identity(#[source] ca::Error),
}

/// The managers of a cluster, as the one that leads sees them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Managers {
    pub leader: Option<NodeId>,
    /// Those that the leader does not hear.
    pub unreachable: BTreeSet<NodeId>,
}

/// The log, as one manager sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogStatus {
    /// This manager's number.
    pub member: u64,
    /// The term of the last election.
    pub term: u64,
    /// The last entry that this manager's view has.
    pub version: Version,
    pub members: Vec<LogMember>,
}

/// One of those who hold the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogMember {
    pub number: u64,
    /// `None`: the store does not know it, as it is about to leave or has just come.
    pub node: Option<NodeId>,
    pub address: Option<String>,
    /// It does not while it catches up.
    pub votes: bool,
    pub is_leader: bool,
    /// Whether the leader hears it; `None` where another manager leads.
    pub is_reachable: Option<bool>,
}

/// A running manager, as the API sees it. Clones are the same manager.
#[derive(Clone, Debug)]
pub struct Manager {
    sequencer: Sequencer,
    route: Arc<Route>,
    address: SocketAddr,
    refusals: Refusals,
}

impl Manager {
    /// Starts the loops of a manager in `scope`, on a log that finds others by `peers`. The cluster's
    /// first objects must be there ([`bootstrap()`]), or come by the log.
    pub async fn start(
        config: Config,
        (sequencer, peers): (Sequencer, Peers),
        identity: Arc<Identity>,
        scope: &mut Scope,
    ) -> Result<Self, Error> {
        let listener = tokio::net::TcpListener::bind(config.listen)
            .await
            .map_err(|source| Error::Listen { address: config.listen, source })?;
        let address = listener
            .local_addr()
            .map_err(|source| Error::Listen { address: config.listen, source })?;
        let signer = Signer::new(Arc::clone(&identity));
        let own = (&*identity, &signer);
        if let Err(fault) = own::renew(&sequencer.view(), own, clock::now()).await {
            // Those with a connection go on meanwhile; it is tried again.
            tracing::error!(%fault, "cannot renew this manager's certificate");
        }
        peers.follow(sequencer.watch());
        let keep =
            own::keep(sequencer.clone(), (Arc::clone(&identity), signer.clone()), scope.token());
        scope.spawn("own certificate", keep);

        let (publish, leading) = Term::channel();
        let admission = membership::Admission::new(sequencer.clone(), signer.clone());
        let orders = Orders::new(sequencer.clone(), (admission.clone(), signer), address.port());
        let by_leader = (sequencer.clone(), leading.clone());
        let route = Arc::new(Route::new(by_leader.clone(), peers, orders));
        let served = dispatch::Served {
            sequencer: sequencer.clone(),
            leading,
            membership: membership::Service::new(by_leader, Arc::clone(&route), admission),
            managers: managers::Service {
                identity: Arc::clone(&identity),
                route: Arc::clone(&route),
            },
        };
        let (dispatch, refusals) = dispatch::serve(served, (listener, &identity), scope)?;
        let status = ManagerStatus { raft_id: sequencer.member(), address: config.address };
        let own = roles::Own { node: identity.node_id(), status };
        Term { sequencer: sequencer.clone(), dispatch, own }.start(publish, scope);
        Ok(Self { sequencer, route, address, refusals })
    }

    /// Where nodes reach this manager; with the port that was given where 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What this manager has refused to strangers, nodes and other managers since it started.
    pub fn refusals(&self) -> &Refusals {
        &self.refusals
    }

    /// Everything that is stored, as this manager knows it: it may lag behind the leader.
    pub fn view(&self) -> View {
        self.sequencer.view()
    }

    /// The cluster's time, as this manager has it.
    pub fn now(&self) -> Timestamp {
        self.sequencer.now()
    }

    /// Everything that is stored: with all that anybody was told is done.
    pub async fn fresh(&self) -> Result<View, Fault> {
        Ok(self.route.fresh().await?.0)
    }

    /// Tells of every change to what is stored.
    pub fn watch(&self) -> watch::Receiver<View> {
        self.sequencer.watch()
    }

    /// Who leads, and who is not heard.
    pub async fn managers(&self) -> Result<Managers, Fault> {
        let (view, unreachable) = self.route.fresh().await?;
        let node = |raft_id| find::manager(&view, raft_id).map(|node| node.id.clone());
        let leader = self.sequencer.leadership().borrow().leader.and_then(node);
        Ok(Managers { leader, unreachable: unreachable.into_iter().filter_map(node).collect() })
    }

    async fn order(&self, order: Order) -> Result<OrderReply, Fault> {
        self.route.order(order).await
    }

    /// Makes a service. Networks in the spec are ids ([`find::network`]).
    pub async fn create_service(&self, spec: ServiceSpec) -> Result<ServiceId, Fault> {
        let reply = self.order(Order::CreateService { spec: Box::new(spec) }).await?;
        Ok(reply.id.as_str().into())
    }

    /// Changes a service that is still at `version`; with `rollback`, back to the spec it had
    /// before its last update (`spec` is ignored then).
    pub async fn update_service(
        &self,
        id: &ServiceId,
        version: Version,
        spec: ServiceSpec,
        rollback: bool,
    ) -> Result<(), Fault> {
        let spec = (!rollback).then(|| Box::new(spec));
        self.order(Order::UpdateService { id: id.clone(), version, spec }).await.map(drop)
    }

    pub async fn remove_service(&self, id: &ServiceId) -> Result<(), Fault> {
        self.order(Order::RemoveService { id: id.clone() }).await.map(drop)
    }

    pub async fn create_network(&self, spec: NetworkSpec) -> Result<NetworkId, Fault> {
        let reply = self.order(Order::CreateNetwork { spec }).await?;
        Ok(reply.id.as_str().into())
    }

    pub async fn remove_network(&self, id: &NetworkId) -> Result<(), Fault> {
        self.order(Order::RemoveNetwork { id: id.clone() }).await.map(drop)
    }

    /// Makes a secret or a config; says its id.
    pub async fn create_file<T: StoredFile>(&self, spec: FileSpec) -> Result<String, Fault> {
        self.order(T::order_new(spec)).await.map(|reply| reply.id)
    }

    /// Changes the labels of a secret or a config that is still at `version`.
    pub async fn update_file<T: StoredFile>(
        &self,
        id: <T as GivenFile>::Id,
        version: Version,
        spec: FileSpec,
    ) -> Result<(), Fault> {
        self.order(T::order_update(id, version, spec)).await.map(drop)
    }

    pub async fn remove_file<T: StoredFile>(&self, id: <T as GivenFile>::Id) -> Result<(), Fault> {
        self.order(T::order_removal(id)).await.map(drop)
    }

    /// Changes a node's name, labels, role or availability.
    pub async fn update_node(
        &self,
        id: &NodeId,
        version: Version,
        spec: NodeSpec,
    ) -> Result<(), Fault> {
        self.order(Order::UpdateNode { id: id.clone(), version, spec }).await.map(drop)
    }

    /// Forgets a node that is down, or any node but a manager by `force`.
    pub async fn remove_node(&self, id: &NodeId, force: bool) -> Result<(), Fault> {
        self.order(Order::RemoveNode { id: id.clone(), force }).await.map(drop)
    }

    /// Changes the cluster's settings, draws new join tokens and begins with another root of trust
    /// where asked to.
    pub async fn update_cluster(
        &self,
        version: Version,
        spec: ClusterSpec,
        rotate: Rotate,
    ) -> Result<(), Fault> {
        self.order(Order::UpdateCluster { version, spec, rotate }).await.map(drop)
    }

    /// Makes a worker of this manager's node, and waits until the others count without it.
    pub async fn resign(&self, node: &NodeId) -> Result<(), Fault> {
        self.order(Order::Resign { id: node.clone() }).await.map(drop)
    }

    /// Lets another manager lead, the one that is named or whichever is best prepared.
    pub async fn transfer(&self, to: Option<NodeId>) -> Result<(), Fault> {
        self.order(Order::Transfer { to }).await.map(drop)
    }

    /// What this manager itself knows of the log and of who holds it, also where nobody leads.
    pub fn log_status(&self) -> LogStatus {
        let view = self.sequencer.view();
        let members = self.sequencer.members();
        let leadership = *self.sequencer.leadership().borrow();
        let of = |number: &u64| {
            let node = find::manager(&view, *number);
            LogMember {
                number: *number,
                node: node.map(|node| node.id.clone()),
                address: node.and_then(|node| Some(node.manager.as_ref()?.address.clone())),
                votes: members.voters.contains(number),
                is_leader: leadership.leader == Some(*number),
                is_reachable: leadership.is_own.then(|| members.reachable.contains(number)),
            }
        };
        LogStatus {
            member: self.sequencer.member(),
            term: leadership.term,
            version: view.version(),
            members: members.voters.union(&members.learners).map(of).collect(),
        }
    }

    /// The last index of what each snapshot on this manager's disk holds, the newest one last.
    pub async fn snapshots(&self) -> Result<Vec<u64>, Fault> {
        self.sequencer.snapshots().await
    }

    /// The newest entries of this manager's log, the oldest first.
    pub async fn log_tail(&self, count: u64) -> Result<Vec<LogEntry>, Fault> {
        self.sequencer.tail(count).await
    }

    /// Lets another manager lead before this one stops; where it does not lead, or is the only one,
    /// there is nothing to do.
    pub async fn hand_over(&self, limit: Duration) -> Result<(), Fault> {
        let is_alone = self.sequencer.members().voters.len() < 2;
        if is_alone || !self.sequencer.leadership().borrow().is_own {
            return Ok(());
        }
        self.sequencer.transfer(None, limit).await
    }

    /// Follows the logs of tasks, wherever they run. Dropping the stream ends it.
    pub async fn logs(
        &self,
        selector: LogSelector,
        options: LogOptions,
    ) -> Result<LogStream, Fault> {
        self.route.logs(selector, options).await
    }
}
