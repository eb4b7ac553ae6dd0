//! What managers are to each other.
//!
//! Users and nodes may ask any manager; one of them leads, and decides. [`Route`] is the one place
//! where a manager that does not lead passes on what it was asked; [`Peers`] carries it, and the
//! log's own messages; `service` answers on the other side. [`Leading`] is what runs on the one that
//! leads, while it does; `roles` makes the log's membership what the store says, `rotation` nodes' certificates.

mod leading;
mod orders;
mod peers;
mod pool;
pub mod roles;
pub mod rotation;
mod route;
mod service;

pub(crate) use leading::{Leading, Term};
pub(crate) use orders::Orders;
pub use peers::Peers;
pub(crate) use route::Route;
pub(crate) use service::{Service, managers_only};

/// Docker's words.
pub(crate) const NO_LEADER: &str = "The swarm does not have a leader. It's possible that too few \
     managers are online. Make sure more than half of the managers are online.";
