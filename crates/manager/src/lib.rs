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
pub mod bootstrap;
mod clock;
pub mod control;
pub mod dispatch;
pub mod find;
pub mod liveness;
mod logs;
mod membership;
mod own;
mod plan;
mod withdrawal;

pub use bootstrap::{First, bootstrap};
pub use clock::Uptime;
pub use control::Rotate;
pub use logs::{LogSelector, LogStream};

use ca::Identity;
use raft::Sequencer;
use scope::Scope;
use std::net::SocketAddr;
use std::sync::Arc;
use store::View;
use tokio::sync::{mpsc, watch};
use types::{
    ClusterSpec, Fault, NetworkId, NetworkSpec, NodeId, NodeSpec, ServiceId, ServiceSpec, Version,
};
use wire::LogOptions;

/// What a manager must be told.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where nodes reach this manager.
    pub listen: SocketAddr,
    /// The addresses (`host:port`) that nodes are told to find managers at.
    pub managers: Vec<String>,
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

/// A running manager, as the API sees it. Clones are the same manager.
#[derive(Clone, Debug)]
pub struct Manager {
    sequencer: Sequencer,
    requests: mpsc::Sender<dispatch::Request>,
    address: SocketAddr,
}

impl Manager {
    /// Starts the loops of a manager in `scope`. The cluster's first objects must be there
    /// ([`bootstrap()`]).
    pub async fn start(
        config: Config,
        sequencer: Sequencer,
        identity: Arc<Identity>,
        scope: &mut Scope,
    ) -> Result<Self, Error> {
        let listener = tokio::net::TcpListener::bind(config.listen)
            .await
            .map_err(|source| Error::Listen { address: config.listen, source })?;
        let address = listener
            .local_addr()
            .map_err(|source| Error::Listen { address: config.listen, source })?;
        if let Err(fault) = own::renew(&sequencer.view(), &identity, clock::now()) {
            // Those with a connection go on meanwhile; it is tried again.
            tracing::error!(%fault, "cannot renew this manager's certificate");
        }
        let keep = own::keep(sequencer.clone(), Arc::clone(&identity), scope.token());
        scope.spawn("own certificate", keep);
        plan::start(sequencer.clone(), scope);
        let requests = dispatch::start(config, sequencer.clone(), (listener, identity), scope)?;
        Ok(Self { sequencer, requests, address })
    }

    /// Where nodes reach this manager; with the port that was given where 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Everything that is stored, as of now.
    pub fn view(&self) -> View {
        self.sequencer.view()
    }

    /// Tells of every change to what is stored.
    pub fn watch(&self) -> watch::Receiver<View> {
        self.sequencer.watch()
    }

    /// Makes a service. Networks in the spec are ids ([`find::network`]).
    pub async fn create_service(&self, spec: ServiceSpec) -> Result<ServiceId, Fault> {
        control::check_own_port(&spec, self.address.port())?;
        control::service::create(&self.sequencer, spec).await
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
        let spec = if rollback { None } else { Some(spec) };
        if let Some(spec) = &spec {
            control::check_own_port(spec, self.address.port())?;
        }
        control::service::update(&self.sequencer, id.clone(), version, spec).await
    }

    pub async fn remove_service(&self, id: &ServiceId) -> Result<(), Fault> {
        control::service::remove(&self.sequencer, id.clone()).await
    }

    pub async fn create_network(&self, spec: NetworkSpec) -> Result<NetworkId, Fault> {
        control::network::create(&self.sequencer, spec).await
    }

    pub async fn remove_network(&self, id: &NetworkId) -> Result<(), Fault> {
        control::network::remove(&self.sequencer, id.clone()).await
    }

    /// Changes a node's name, labels or availability.
    pub async fn update_node(
        &self,
        id: &NodeId,
        version: Version,
        spec: NodeSpec,
    ) -> Result<(), Fault> {
        control::node::update(&self.sequencer, id.clone(), version, spec).await
    }

    /// Forgets a node that is down, or any node but a manager by `force`.
    pub async fn remove_node(&self, id: &NodeId, force: bool) -> Result<(), Fault> {
        control::node::remove(&self.sequencer, id.clone(), force).await
    }

    /// Changes the cluster's settings and draws new join tokens where asked to.
    pub async fn update_cluster(
        &self,
        version: Version,
        spec: ClusterSpec,
        rotate: Rotate,
    ) -> Result<(), Fault> {
        control::cluster::update(&self.sequencer, version, spec, rotate).await
    }

    /// Follows the logs of tasks, wherever they run. Dropping the stream ends it.
    pub async fn logs(
        &self,
        selector: LogSelector,
        options: LogOptions,
    ) -> Result<LogStream, Fault> {
        logs::subscribe(&self.requests, selector, options).await
    }
}
