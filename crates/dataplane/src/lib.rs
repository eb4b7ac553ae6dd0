//! Carries this node's part of the cluster's networks: what is known becomes kernel state and DNS
//! answers.
//!
//! It does not know netlink or nftables (that is behind [`discovery::Kernel`]), nor how namespaces
//! are made ([`Namespaces`], [`Sockets`]), nor who pushes [`discovery::Knowledge`]. Start with [`start`] and
//! [`Dataplane`]; `run` is the one loop, [`Names`] its way to the name server, which `nameserver`
//! is: one `resolver` for each container.
//!
//! The name server may be a process of its own, so that containers find names while no daemon runs
//! (docs/adr/0002-name-server-process.md).
//!
//! Invariants: kernel state and zones are always derived whole from one projection, and never
//! edited. A container starts only after the kernel holds its network. What is here survives the
//! daemon: a restarted one projects the same from its journal before it hears of any manager.
//!
//! Gossip will join here: withdrawals and members that are down, spread from node to node, go into
//! `Here` (what is served is *pushed − hidden − on members that are down*) and wake the loop.

mod error;
#[cfg(any(test, feature = "fake"))]
pub mod fake;
#[cfg(test)]
mod formats;
mod gateway;
mod handle;
mod journal;
mod message;
mod names;
mod nameserver;
mod port;
mod resolver;
mod run;
#[cfg(test)]
mod tests;
mod upstream;

pub use error::Error;
pub use handle::{Config, Dataplane, Identity, News, Wanted, start};
pub use names::{Names, Process, serve};
pub use port::{Namespaces, Sockets};
