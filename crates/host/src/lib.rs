//! Files and processes of this machine, as more than one crate needs them.
//!
//! [`replace`] writes a file so that a crash leaves the old one or the new one, whole. [`listen_at`]
//! makes a socket that nobody finds open to more than it is for. A
//! [`Process`] is told from a later one with the same pid. A [`Disk`] says how much it has free. The kernel's
//! table says what [`is_mounted`].
//!
//! It knows nothing of clusters, containers and networks.

mod disk;
mod file;
mod mounts;
mod process;
mod socket;

pub use disk::{Disk, Stock};
pub use file::replace;
pub use mounts::{is_mounted, mounts_below};
pub use process::{Process, find, has_flag};
pub use socket::listen_at;
