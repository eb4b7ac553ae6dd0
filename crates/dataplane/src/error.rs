//! What can go wrong, and what to do about it.

use std::io;
use std::path::PathBuf;
use types::{NetworkId, Retry};

/// Boxed error of the kernel's port.
pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the data plane has stopped")]
    Stopped,
    #[error(transparent)]
    Journal(#[from] journal::Error),
    #[error("cannot take over {path}, which a former release wrote; move it away to start afresh")]
    Former {
        path: PathBuf,
        #[source]
        source: BoxError,
    },
    #[error("version {version} does not follow on {known}, which is known")]
    OutOfStep { version: u64, known: u64 },
    #[error("network {0} is not known on this node yet")]
    UnknownNetwork(NetworkId),
    /// In Docker's words.
    #[error("Bind for 0.0.0.0:{0} failed: port is already allocated")]
    PortAllocated(u16),
    #[error("no free address in the gateway subnet {0}; choose a larger one")]
    GatewayExhausted(ipnet::Ipv4Net),
    #[error("cannot make the network namespace {path}")]
    Namespace {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot open the DNS server in {path}")]
    Resolver {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("container {0} was detached meanwhile")]
    Detached(String),
    #[error("cannot set up the network: {0}")]
    Kernel(String),
    #[error("{0}; stop that process, or publish another port")]
    PortTaken(String),
    #[error("the way to the kernel's network is lost: {0}")]
    Lost(String),
}

impl Error {
    /// Says whether trying again may help.
    pub fn retry(&self) -> Retry {
        match self {
            Self::UnknownNetwork(_)
            | Self::Namespace { .. }
            | Self::Resolver { .. }
            | Self::Kernel(_)
            | Self::GatewayExhausted(_) => Retry::Transient,
            Self::Stopped
            | Self::PortTaken(_)
            | Self::PortAllocated(_)
            | Self::Lost(_)
            | Self::OutOfStep { .. }
            | Self::Detached(_)
            | Self::Journal(_)
            | Self::Former { .. } => Retry::Permanent,
        }
    }
}
