//! The cluster's objects: what a manager knows, and what may be written.
//!
//! A [`View`] is a cheap snapshot of everything. A [`Tx`] collects what shall change and reads its
//! own writes; [`View::apply`] makes the collected [`Changes`] so. This crate knows nothing of who
//! writes, of logs or of disks, and reads no clock: version and time come with the changes.
//!
//! Start with [`View`], then [`Tx`]. An object is changed by copying it out of the view:
//! `let mut service = Service::clone(view.service(&id)?);`.
//!
//! Invariants: objects are never changed in place, so a view stays as it was when it was taken;
//! [`rules::check`] says which changes may be written at all.

mod change;
mod diff;
pub mod rules;
mod tx;
mod view;

pub use change::{Change, Changes, Key, Object};
pub use tx::Tx;
pub use view::{Snapshot, View};
