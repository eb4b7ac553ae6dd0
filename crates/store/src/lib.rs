//! The cluster's objects: what a manager knows, and what may be written.
//!
//! A [`View`] is a cheap snapshot of everything. A [`Tx`] collects what shall change and reads its
//! own writes; [`View::apply`] makes the collected [`Changes`] so. This crate knows nothing of who
//! writes, of logs or of disks, and reads no clock: version and time come with the changes.
//!
//! Start with [`View`], then [`Tx`]. A further kind of object is a line in `table`.
//!
//! Invariants: objects are never changed in place, so a view stays as it was when it was taken;
//! indexes follow from the tables alone; [`rules::admit`] says which changes may be written at all.

mod change;
mod claim;
mod diff;
mod event;
mod format;
mod history;
mod index;
pub mod readers;
pub mod rules;
mod since;
mod table;
mod tx;
mod view;

pub use change::{Change, Changes};
pub use event::{Action, Attributes, Event};
pub use format::Format;
pub use history::{History, StoredHistory};
pub use table::{Key, Object, Record, Snapshot};
pub use tx::Tx;
pub use view::View;
