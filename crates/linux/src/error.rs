//! What can go wrong with the kernel, and in which words.

use ipnet::Ipv4Net;
use std::io;
use std::path::PathBuf;
use types::Retry;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refused a request; `sentence` is its own explanation in parentheses.
    #[error("cannot {doing}{sentence}")]
    Refused {
        doing: String,
        sentence: String,
        #[source]
        source: io::Error,
    },
    #[error("cannot {doing}")]
    System {
        doing: String,
        #[source]
        source: io::Error,
    },
    #[error("cannot use the network namespace {path}")]
    Namespace {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("nftables refused: {message}")]
    Rules { message: String },
    #[error("cannot load libnftables.so.1; install the package libnftables1")]
    Library(#[source] libloading::Error),
    #[error("libnftables gave no context; is the process root?")]
    Context,
    #[error(
        "VNI {vni} is in use by an interface that is not ours; remove it or change the network"
    )]
    VniTaken { vni: u32 },
    #[error("{subnet} is in use on this node: {link} has {net}; choose another subnet")]
    SubnetTaken { subnet: Ipv4Net, net: Ipv4Net, link: String },
    #[error("cannot have the firewall's chain {chain} let containers pass: {message}")]
    Firewall { chain: String, message: String },
    #[error(
        "the firewall's table {table} belongs to one program alone, and drops what containers send \
         or receive: {remedy}"
    )]
    FirewallOwned { table: String, remedy: String },
    #[error("{path} is not valid: {why}")]
    Value { path: String, why: &'static str },
    #[error("the kernel's thread has ended; restart the daemon")]
    Ended,
}

impl Error {
    pub(crate) fn system(doing: &str, source: io::Error) -> Self {
        Self::System { doing: doing.to_owned(), source }
    }

    /// The system's number of the error, where it has one.
    pub fn code(&self) -> Option<i32> {
        match self {
            Self::Refused { source, .. }
            | Self::System { source, .. }
            | Self::Namespace { source, .. } => source.raw_os_error(),
            Self::Rules { .. }
            | Self::Library(_)
            | Self::Context
            | Self::VniTaken { .. }
            | Self::SubnetTaken { .. }
            | Self::Firewall { .. }
            | Self::FirewallOwned { .. }
            | Self::Value { .. }
            | Self::Ended => None,
        }
    }

    /// Says whether trying again may help.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Refused { .. }
            | Self::System { .. }
            | Self::Namespace { .. }
            | Self::Rules { .. }
            | Self::VniTaken { .. }
            | Self::SubnetTaken { .. }
            | Self::Firewall { .. }
            | Self::FirewallOwned { .. }
            | Self::Context => Retry::Transient,
            Self::Library(_) | Self::Value { .. } | Self::Ended => Retry::Permanent,
        }
    }
}

/// An error with its causes, in one line.
pub(crate) fn chain(error: &Error) -> String {
    types::chain(error)
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        let source = std::error::Error::source(&error);
        let source = source.and_then(|source| source.downcast_ref::<Self>());
        let kind = source.map_or(io::ErrorKind::Other, Self::kind);
        Self::new(kind, error)
    }
}
