//! Published ports.

use serde::{Deserialize, Serialize};

/// A transport protocol.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    #[default]
    Tcp,
    Udp,
}

impl Protocol {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// How a port is published.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum PublishMode {
    /// On every node, balanced over the service's tasks.
    #[default]
    Ingress,
    /// Only on the nodes that run a task, straight to that task.
    Host,
}

/// A port of a task that is reachable from outside the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default)]
pub struct PublishedPort {
    pub name: String,
    pub protocol: Protocol,
    /// The port inside the container.
    pub target: u16,
    /// The port on the nodes; 0 in a spec asks the allocator for one from 30000 to 32767.
    pub published: u16,
    pub mode: PublishMode,
}

impl PublishedPort {
    /// Says whether the routing mesh leads to it.
    pub fn in_mesh(&self) -> bool {
        match self.mode {
            PublishMode::Ingress => true,
            PublishMode::Host => false,
        }
    }
}
