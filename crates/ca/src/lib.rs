//! Who is who: the cluster's root of trust, nodes' certificates and join tokens, and TLS between
//! nodes made of them.
//!
//! Every node has a certificate that the cluster's root signed; it says the node's id, role and
//! cluster ([`Peer`]). A machine without one may connect all the same, as it must to ask for one:
//! whoever serves a call asks [`peer`] and refuses strangers. A joining machine trusts the root
//! whose digest its [`JoinToken`] names.
//!
//! Start with [`Authority`] (signs), [`Identity`] (what a node holds) and [`accept`]/[`connect`]
//! (the two ends of a connection). This crate knows nothing of which tokens are valid or which
//! nodes exist: a manager does.
//!
//! The root may be rotated: [`rotate`] makes what both roots' nodes trust meanwhile. Its key may be
//! somewhere else: [`External`] asks whoever has it, and takes nothing for granted of the answer.
//!
//! Invariants: private keys are written to one file of mode 0600 only ([`Secrets`]), and never logged; nobody but a
//! manager's certificate is taken for a server; sessions are not resumed, so a connection always
//! shows the certificate that is current when it is made, and ends with it.

mod authority;
mod bounded;
mod clock;
mod connect;
mod digest;
mod external;
mod files;
mod identity;
mod incoming;
mod join;
mod peer;
mod permits;
mod refusals;
mod root;
mod roots;
mod secrets;
mod text;
pub mod tls;
mod token;

pub use authority::Authority;
pub use bounded::Bounded;
pub use connect::{REACH_LIMIT, connect, connect_within};
pub use digest::{node_of, root_digest};
pub use external::{External, check_url, sign};
pub use identity::{Identity, Request};
pub use incoming::{Accepted, Arrivals, Connection, Connections, Incoming, accept};
pub use join::{enroll, join, number, renew};
pub use peer::{Peer, peer, remote, subject};
pub use permits::{Limit, Permit, Permits, origin};
pub use refusals::Refusals;
pub use root::{canonical, given, issuer, rotate, rotate_signed};
pub use seal::{Key, UnlockKey};
pub use secrets::Secrets;
pub use token::JoinToken;

use std::io;
use std::path::PathBuf;
use types::{Fault, FaultKind, chain};

/// What a manager answers to a well-formed token that is not (or no longer) the cluster's.
pub const TOKEN_REFUSED: &str = "a valid join token is necessary to join this cluster";

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("invalid join token")]
    Token,
    /// The manager is not of the cluster that the token is for.
    #[error("remote CA does not match fingerprint. Expected: {expected}")]
    Fingerprint { expected: String },
    #[error("the certificate is not as expected: {0}")]
    Certificate(String),
    /// A root that a user gives.
    #[error("{0}")]
    Root(String),
    #[error("the certificate signing request is not as expected: {0}")]
    Request(String),
    /// Who has the root's key has not signed, or not what it was asked for.
    #[error("{0}")]
    External(String),
    #[error("cannot make a certificate")]
    Making(#[from] rcgen::Error),
    #[error("cannot set up TLS")]
    Tls(#[from] rustls::Error),
    #[error("the node's keys are locked: an unlock key opens them")]
    Locked,
    #[error("the node's keys are locked by another unlock key")]
    UnlockKey,
    #[error("no randomness")]
    Randomness,
    #[error("cannot use {}", path.display())]
    File {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        let kind = match &error {
            Error::Token | Error::Fingerprint { .. } | Error::Root(_) | Error::Request(_) => {
                FaultKind::Invalid
            }
            Error::Locked | Error::External(_) => FaultKind::Unavailable,
            Error::UnlockKey => FaultKind::Unauthorized,
            Error::Certificate(_)
            | Error::Making(_)
            | Error::Tls(_)
            | Error::Randomness
            | Error::File { .. } => FaultKind::Internal,
        };
        Self::new(kind, chain(&error))
    }
}
