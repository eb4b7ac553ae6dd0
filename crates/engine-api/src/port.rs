//! The port to the node that the API runs on: what it is, and how it joins and leaves a cluster.

use futures_util::future::BoxFuture;
use manager::Manager;
use std::net::IpAddr;
use std::path::PathBuf;
use store::View;
use tokio::sync::watch;
use types::{Availability, ClusterSpec, Fault, Labels, NodeId, RootCa};

/// The node, as far as the API needs it besides its containers.
pub trait Node: Send + Sync + 'static {
    /// What does not change while the daemon runs.
    fn about(&self) -> &About;

    /// The node's part in a cluster, now.
    fn membership(&self) -> Membership;

    /// Follows the node's part in a cluster.
    fn memberships(&self) -> watch::Receiver<Membership>;

    /// Makes this node the first manager of a new cluster.
    fn init(&self, request: Init) -> BoxFuture<'_, Result<NodeId, Fault>>;

    /// Joins a cluster.
    fn join(&self, request: Join) -> BoxFuture<'_, Result<(), Fault>>;

    /// Makes this node the only manager of a cluster that was saved.
    fn restore(&self, request: Restore) -> BoxFuture<'_, Result<NodeId, Fault>>;

    /// Leaves the cluster; a manager only with `force`.
    fn leave(&self, force: bool) -> BoxFuture<'_, Result<(), Fault>>;

    /// Opens the keys of a manager that is locked.
    fn unlock(&self, key: String) -> BoxFuture<'_, Result<(), Fault>>;
}

/// A node's own facts.
#[derive(Clone, Debug)]
pub struct About {
    pub id: String,
    pub hostname: String,
    /// What the daemon was started with.
    pub labels: Labels,
    pub version: String,
    pub data_dir: PathBuf,
    pub kernel: String,
    /// E.g. `Debian GNU/Linux 12 (bookworm)`.
    pub operating_system: String,
    /// E.g. `12`; empty where the system has none.
    pub operating_system_version: String,
    /// Docker's word, e.g. `x86_64`.
    pub architecture: String,
    pub cpus: i64,
    pub memory_bytes: i64,
    pub cgroup_version: &'static str,
    /// The subnet of the gateway bridge.
    pub gateway_subnet: String,
}

/// A node's part in a cluster.
#[derive(Clone)]
pub enum Membership {
    /// In no cluster.
    Inactive,
    /// Trying to join; why it takes so long.
    Pending {
        reason: String,
    },
    /// A manager that waits for the unlock key.
    Locked,
    Active(Box<Member>),
}

/// What a node of a cluster knows.
#[derive(Clone)]
pub struct Member {
    pub node: NodeId,
    pub address: IpAddr,
    /// RPC addresses of the managers.
    pub managers: Vec<String>,
    /// Why no manager is heard, and what to do; empty: all is well.
    pub error: String,
    /// On managers: the cluster's operations.
    pub manager: Option<Manager>,
}

/// `POST /swarm/init`.
#[derive(Clone, Debug)]
pub struct Init {
    pub listen: String,
    pub advertise: String,
    /// An address or interface for the overlays' traffic; empty: the advertised one.
    pub data_path: String,
    pub data_path_port: u16,
    pub address_pools: Vec<ipnet::IpNet>,
    pub subnet_prefix: u8,
    pub force_new_cluster: bool,
    pub spec: ClusterSpec,
    /// The root that the user gives; without one the cluster makes its own.
    pub root: Option<RootCa>,
    pub availability: Availability,
}

/// `POST /skep/restore`.
#[derive(Clone, Debug)]
pub struct Restore {
    pub listen: String,
    pub advertise: String,
    /// An address or interface for the overlays' traffic; empty: the advertised one.
    pub data_path: String,
    /// All that the cluster knew.
    pub view: View,
}

/// `POST /swarm/join`.
#[derive(Clone, Debug)]
pub struct Join {
    pub listen: String,
    pub advertise: String,
    /// An address or interface for the overlays' traffic; empty: the advertised one.
    pub data_path: String,
    /// `host:port` of managers.
    pub remotes: Vec<String>,
    pub token: String,
    pub availability: Availability,
}

/// What users of a node without a cluster read, in Docker's words.
pub(crate) const NOT_A_MANAGER: &str = "This node is not a swarm manager. Use \"docker swarm \
     init\" or \"docker swarm join\" to connect this node to swarm and try again.";

/// What users of a locked manager read, in Docker's words.
pub const LOCKED: &str = "Swarm is encrypted and needs to be unlocked before it can be used. \
     Please use \"docker swarm unlock\" to unlock it.";

/// What users of a worker read, in Docker's words.
pub const A_WORKER: &str = "This node is not a swarm manager. Worker nodes can't be used \
     to view or modify cluster state. Please run this command on a manager node or promote the \
     current node to a manager.";

impl Membership {
    /// The cluster's operations, or Docker's words on why there are none here.
    pub(crate) fn manager(self) -> Result<Manager, Fault> {
        match self {
            Self::Inactive | Self::Pending { .. } => Err(Fault::unavailable(NOT_A_MANAGER)),
            Self::Locked => Err(Fault::unavailable(LOCKED)),
            Self::Active(member) => member.manager.ok_or_else(|| Fault::unavailable(A_WORKER)),
        }
    }
}
