//! Containers, images, volumes, logs, exec, events and health checks of this node, for tasks and
//! plain containers alike.
//!
//! It knows nothing of clusters and their tasks, of Docker's API, nor of what runs the processes: that is
//! behind [`Runtime`]. Networks are the data plane's. Start with [`Engine`], then `container`, one
//! container's life, `spec`, the pure rendering of what runs, and `logs`.
//!
//! Invariants: a container's record is on disk before anything of it runs, and containers outlive
//! the daemon: [`start`] takes over what runs. A log is closed only after all that the container
//! wrote is in it. A container is never held up for ever by a full disk or a slow reader.
//!
//! Output goes through FIFOs that the engine reads. While no engine runs, it is put aside by
//! whoever called [`stand_in()`]. Without one, a container that has written a FIFO full (1 MiB) waits for
//! the next engine, and the last output of a container that ends meanwhile is lost.

mod attach;
mod blocking;
mod by_name;
mod cdi;
mod clock;
mod config;
mod connections;
mod container;
mod drivers;
mod engine;
mod events;
mod exec;
#[cfg(any(test, feature = "fake"))]
pub mod fake;
mod fetch;
mod fifo;
mod files;
#[cfg(test)]
mod formats;
mod health;
mod images;
mod info;
mod joined;
mod life;
mod logs;
mod memory;
mod mounting;
mod names;
mod node_access;
mod path_checks;
mod pump;
mod record;
mod reference;
mod registry;
mod rootfs;
mod runtime;
mod signals;
mod spec;
mod stand_in;
mod taps;
mod task_images;
mod told;
mod top;
mod usage;
mod users;
mod volumes;

pub use by_name::ByName;
pub use config::{Asked, Config, ContainerConfig, HostPort, LogConfig, NetworkMode};
pub use discovery::Place;
pub use engine::{Engine, WaitFor, start};
pub use events::{Event, EventKind, EventStream, Events};
pub use exec::{AttachOptions, Attached, Chunk, ExecConfig, ExecInfo};
pub use health::{Health, HealthStatus, Probe};
pub use images::{PullStream, Removed};
pub use info::{ContainerInfo, ContainerState, MountPoint, Status};
pub use life::Created;
pub use logs::{DRIVERS as LOG_DRIVERS, LogEntry, LogOptions, LogStream};
pub use memory::MemoryFile;
pub use mounting::{HELPER as MOUNT_HELPER, help as mount_helper};
pub use names::draw as draw_name;
pub use reference::Reference;
pub use runtime::{
    Archive, Credentials, DeviceUse, Distribution, Exit, Happening, Image, Packets, Progress,
    Runtime, RuntimeFuture, Size, State, Stdio, Traffic, Usage,
};
pub use spec::{MASKED, Merged, READONLY, check_profile as check_seccomp_profile};
pub use stand_in::stand_in;
pub use top::Top;
pub use usage::DiskUse;
pub use volumes::{Volume, VolumeOrder};
