//! Nodes: the machines of the cluster.

use crate::task::{TEXT_MAX, cut};
use crate::{Addresses, GenericResources, Issuer, Labels, Meta, NodeId, Timestamp};
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr};

/// The label of a node that says how it is drained, and the value for: with pace.
pub const DRAIN_LABEL: &str = "skep.drain";
pub const DRAIN_PACED: &str = "paced";

/// A node: the user's wishes, what it says of itself, and what managers observe of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Node {
    pub id: NodeId,
    pub meta: Meta,
    pub spec: NodeSpec,
    /// What it is: its certificates are signed for it.
    pub role: NodeRole,
    /// Its part in the cluster's log; `None`: it has none, or not yet. Written by `membership`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub manager: Option<ManagerStatus>,
    pub description: NodeDescription,
    pub status: NodeStatus,
    /// Its addresses on the ingress network; written by the allocator. Its MAC, mark and conntrack
    /// zone there derive from them.
    #[serde(alias = "ingress_address")]
    pub ingress_addresses: Addresses,
    /// Why it has no address on the ingress network; empty when it has. Written by the allocator.
    pub allocation_error: String,
    /// What of its network does not work on it, as it reports; empty where all does.
    pub trouble: String,
}

impl Node {
    /// What messages call it: its host name, or its id where it has never said one.
    pub fn known_as(&self) -> &str {
        let hostname = &self.description.hostname;
        if hostname.is_empty() { self.id.as_str() } else { hostname }
    }

    /// What the status of a node says that left.
    pub const LEFT: &str = "left";

    /// Says whether the node has left for good: its certificate counts no more.
    pub fn has_left(&self) -> bool {
        self.status.state == NodeState::Down && self.status.message == Self::LEFT
    }

    /// Says whether managers have given the node up for now: nothing was heard of it for too long,
    /// or it has left.
    pub fn is_down(&self) -> bool {
        match self.status.state {
            NodeState::Down => true,
            NodeState::Unknown | NodeState::Ready | NodeState::Disconnected => false,
        }
    }

    /// Says whether it is drained, and its tasks are to leave it at the pace of their services'
    /// updates.
    pub fn is_drained_with_pace(&self) -> bool {
        let is_drained = match self.spec.availability {
            Availability::Drain => true,
            Availability::Active | Availability::Pause => false,
        };
        is_drained && self.spec.labels.get(DRAIN_LABEL).is_some_and(|how| how == DRAIN_PACED)
    }

    /// Notes what the node says of itself; says whether that is news.
    pub fn note_trouble(&mut self, mut trouble: String) -> bool {
        cut(&mut trouble, TEXT_MAX);
        let is_news = self.trouble != trouble;
        self.trouble = trouble;
        is_news
    }
}

impl Default for Node {
    fn default() -> Self {
        Self {
            id: NodeId::default(),
            meta: Meta::default(),
            spec: NodeSpec::default(),
            role: NodeRole::Worker,
            manager: None,
            description: NodeDescription::default(),
            status: NodeStatus::default(),
            ingress_addresses: Addresses::default(),
            allocation_error: String::new(),
            trouble: String::new(),
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeSpec {
    pub name: String,
    pub labels: Labels,
    /// What the user wants it to be.
    pub role: NodeRole,
    pub availability: Availability,
}

#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum NodeRole {
    #[default]
    Worker,
    Manager,
}

impl NodeRole {
    /// Docker's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Worker => "worker",
            Self::Manager => "manager",
        }
    }
}

#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Availability {
    /// Takes tasks.
    #[default]
    Active,
    /// Keeps its tasks, takes no new ones.
    Pause,
    /// Its tasks move elsewhere.
    Drain,
}

impl Availability {
    /// Docker's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Pause => "pause",
            Self::Drain => "drain",
        }
    }
}

/// What a manager is besides a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ManagerStatus {
    /// Its number in the log's membership; no other manager ever gets it.
    pub raft_id: u64,
    /// Where managers and nodes reach it, `host:port`.
    pub address: String,
}

/// What a node says of itself when it registers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeDescription {
    pub hostname: String,
    pub platform: Platform,
    pub nano_cpus: i64,
    pub memory_bytes: i64,
    pub engine: EngineInfo,
    /// PEM of the root certificates that this node trusts, the cluster's first.
    pub trust_root: String,
    /// Who signed its certificate.
    #[serde(skip_serializing_if = "Issuer::is_unknown")]
    pub issuer: Issuer,
    /// The newest format of the managers' log that its release reads; 0: it does not say.
    #[serde(skip_serializing_if = "is_zero")]
    pub log_format: u32,
    /// What its daemon was told that it has of generic resources.
    #[serde(skip_serializing_if = "GenericResources::is_empty")]
    pub generic: GenericResources,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands in a reference")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Platform {
    /// Go's word, e.g. `linux`.
    pub os: String,
    /// Docker's word for the machine, e.g. `x86_64`.
    pub architecture: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EngineInfo {
    pub version: String,
    /// What its daemon was started with.
    pub labels: Labels,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub plugins: Vec<Plugin>,
}

/// Something that a node can do in more than one way, and one of these ways.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default)]
pub struct Plugin {
    /// Docker's word, e.g. `Volume`.
    pub kind: String,
    pub name: String,
}

impl Plugin {
    /// Docker's word for drivers of volumes.
    pub const VOLUME: &str = "Volume";
}

impl EngineInfo {
    /// Says whether the node has a plugin. Docker's managed ones are told with a tag.
    pub fn has_plugin(&self, kind: &str, name: &str) -> bool {
        let bare = |name: &str| name.strip_suffix(":latest").unwrap_or(name).to_owned();
        let wanted = bare(name);
        self.plugins.iter().any(|it| it.kind == kind && bare(&it.name) == wanted)
    }
}

/// What managers observe of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeStatus {
    pub state: NodeState,
    /// When the state was entered; zero where an older manager wrote it.
    pub since: Timestamp,
    pub message: String,
    /// The address other nodes reach it at.
    #[serde(with = "crate::plain")]
    pub address: IpAddr,
    /// Its VXLAN end point, where that is another address.
    #[serde(with = "crate::plain")]
    pub data_path_address: Option<IpAddr>,
    /// It is about to leave: its tasks go, and it gets no others.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub leaving: bool,
}

impl Default for NodeStatus {
    fn default() -> Self {
        Self {
            state: NodeState::Unknown,
            since: Timestamp::default(),
            message: String::new(),
            address: Ipv4Addr::UNSPECIFIED.into(),
            data_path_address: None,
            leaving: false,
        }
    }
}

impl NodeStatus {
    /// The node's VXLAN end point.
    pub fn vtep(&self) -> IpAddr {
        self.data_path_address.unwrap_or(self.address)
    }

    /// Notes what is so as of `now`; a state that goes on keeps its beginning.
    pub fn enter(&mut self, state: NodeState, message: &str, now: Timestamp) {
        if self.state != state {
            self.state = state;
            self.since = now;
        }
        message.clone_into(&mut self.message);
    }
}

#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum NodeState {
    #[default]
    Unknown,
    Down,
    Ready,
    Disconnected,
}

impl NodeState {
    /// Docker's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Down => "down",
            Self::Ready => "ready",
            Self::Disconnected => "disconnected",
        }
    }
}
