//! What can be seen of a container.

use crate::config::ContainerConfig;
use crate::health::Health;
use crate::spec::Merged;
use discovery::Place;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use types::{LOCAL_DRIVER, Mount, MountKind, Timestamp};

/// Where a container is in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    #[default]
    Created,
    Running,
    Exited,
    /// It is being removed.
    Removing,
}

impl Status {
    /// Docker's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Exited => "exited",
            Self::Removing => "removing",
        }
    }
}

/// How a container is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerState {
    pub status: Status,
    /// 0 unless it runs.
    pub pid: u32,
    pub exit_code: i32,
    /// Why it could not be started; empty otherwise.
    pub error: String,
    pub oom_killed: bool,
    /// Zero: never.
    pub started_at: Timestamp,
    /// Zero: never.
    pub finished_at: Timestamp,
    /// `None` without a health check.
    pub health: Option<Health>,
    /// Counts starts.
    pub starts: u64,
    /// The cluster's networks that it was on when it was last started.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub places: Vec<Place>,
    /// Where its plugins mounted its volumes when it was last started, by their names.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub volumes: BTreeMap<String, PathBuf>,
}

/// A container as `docker inspect` shows it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ContainerInfo {
    pub id: String,
    /// Without a slash.
    pub name: String,
    pub created: Timestamp,
    /// The image's id.
    pub image: String,
    /// As it was asked for, with `host_ports` resolved.
    pub config: ContainerConfig,
    /// What is executed: entrypoint and command of the config and the image together.
    pub args: Vec<String>,
    pub merged: Merged,
    pub hostname: String,
    pub state: ContainerState,
    /// Where each mount comes from on this machine.
    pub mounts: Vec<MountPoint>,
    /// Its address on the gateway bridge, where it is attached.
    pub address: Option<Ipv4Addr>,
    pub netns: Option<PathBuf>,
    pub log_path: PathBuf,
    /// Has its `hosts`, `hostname` and `resolv.conf`; empty before the first start.
    pub folder: PathBuf,
    /// The profile that confines it; empty for none. This and the next where one is inspected.
    pub apparmor: String,
    /// Processes of clients that run in it.
    pub execs: Vec<String>,
}

impl MountPoint {
    /// Says whether it is of this volume.
    pub(crate) fn is_of(&self, volume: &str) -> bool {
        self.mount.kind == MountKind::Volume && self.mount.source == volume
    }

    /// The driver of the volume.
    pub fn driver(&self) -> &str {
        let known = [&self.driver, &self.mount.volume_driver];
        known.into_iter().find(|name| !name.is_empty()).map_or(LOCAL_DRIVER, |name| name)
    }
}

/// A mount as it was made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MountPoint {
    pub mount: Mount,
    /// A directory or file of this machine; empty for a tmpfs.
    pub source: PathBuf,
    /// The id of the image that is mounted; empty for all else.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub image: String,
    /// The driver that has the volume; empty: what the mount says, otherwise `local`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) driver: String,
    /// The volume has no name of its own and goes with the container.
    pub anonymous: bool,
    /// The volume was made with the mount.
    #[serde(skip)]
    pub(crate) is_new: bool,
}
