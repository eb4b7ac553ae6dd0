//! A whole cluster in one thread, on a clock of its own: the real decisions of managers and nodes in
//! a world that goes wrong.
//!
//! A seed makes a [`Script`]: what users ask for and what breaks, and when. [`run`] plays it: first
//! the storm, in which machines die, networks are cut, disks fill and clocks jump; then the calm, in
//! which all of that ends, and after a while everything has to be as users want it. After everything
//! that happens, the rules in [`invariant`] are asked. The same script gives the same run, to the
//! last message, so a rule that is broken once is broken again: [`shrink`] drops what is not
//! needed for that, until a person can read the rest.
//!
//! The code under test is what managers and nodes run: `planner`, `raft::decide`, `store::rules`,
//! `manager::{control, dispatch, managers::roles}`, `agent::{session, worker}`, `discovery`. Models
//! of ours are only what is outside of them: [`network`], the log of one or more managers
//! ([`consensus`]), machines with containers, kernels and disks ([`node`]), clocks, [`user`]s and
//! [`fault`]s. It knows nothing of sockets, of threads or of the real time.
//!
//! Start with [`world`], then [`invariant`].
//!
//! Invariant: all chance comes from [`random`], seeded by the script; nothing else differs from run
//! to run.

pub mod ask;
pub mod consensus;
pub mod context;
pub mod fault;
pub mod history;
pub mod invariant;
pub mod manager;
pub mod network;
pub mod node;
pub mod random;
pub mod script;
pub mod shrink;
pub mod user;
pub mod world;

pub use history::Detail;
pub use script::Script;
pub use world::{Failure, Outcome, run};
