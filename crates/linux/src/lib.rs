//! The Linux kernel's network as Skep uses it: namespaces, interfaces, rules.
//!
//! It carries out what `discovery` projects and knows neither services nor tasks. Start with
//! [`Kernel`], which makes the kernel hold a `Desired`; [`Namespaces`] is the data plane's port to
//! containers' namespaces, [`Brokered`] that of a name server without rights; [`check()`] says what a machine lacks; [`Underlay`] is the lab's network.
//!
//! Invariants: what is applied twice changes nothing; established connections survive every change
//! that does not take their back end away; nothing is touched that is not ours (our names: tables
//! `skep` and `skep_mesh`, interfaces `skep…`, files in folders that the configuration names).
#![expect(unsafe_code, reason = "system calls and libnftables; no other crate may")]

mod apparmor;
mod broker;
mod check;
mod descriptors;
mod error;
mod ipv4;
mod kernel;
mod namespace;
mod netlink;
mod nft;
mod render;
mod sandboxes;
mod underlay;

pub use apparmor::{load_apparmor, unload_apparmor};
pub use broker::{Broker, Brokered, confine, keep_capabilities};
pub use check::{Need, check};
pub use descriptors::sealed;
pub use error::Error;
pub use kernel::{Config, Kernel};
pub use namespace::{Namespace, enter, run_in, start_in};
pub use sandboxes::Namespaces;
pub use underlay::Underlay;

/// The small static init of containers; `None` on architectures for which there is none.
pub fn init() -> Option<&'static [u8]> {
    const PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/init"));
    Some(PROGRAM).filter(|program| !program.is_empty())
}
