//! What a user wants to run in a container.

use crate::{ConfigId, Fault, FileReference, Labels, SecretId};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Component, Path};
use std::time::Duration;

/// A container as a user describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerSpec {
    pub image: String,
    pub labels: Labels,
    /// Replaces the image's entrypoint where not empty (`Command` in the API).
    pub command: Vec<String>,
    /// Replaces the image's command where not empty (`Args` in the API).
    pub args: Vec<String>,
    pub hostname: String,
    /// `NAME=value`, or `NAME` alone to unset one of the image.
    pub env: Vec<String>,
    pub dir: String,
    pub user: String,
    pub groups: Vec<String>,
    pub tty: bool,
    pub open_stdin: bool,
    pub read_only: bool,
    pub init: Option<bool>,
    pub stop_signal: String,
    /// 10 s where not set.
    pub stop_grace_period: Option<Duration>,
    /// The image's own where not set.
    pub health: Option<HealthCheck>,
    pub hosts: Vec<HostEntry>,
    pub dns: DnsConfig,
    pub mounts: Vec<Mount>,
    pub cap_add: Vec<String>,
    pub cap_drop: Vec<String>,
    pub sysctls: Labels,
    pub ulimits: Vec<Ulimit>,
    pub oom_score_adj: i64,
    pub security: Security,
    /// Files that are there as long as the container runs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<FileReference<SecretId>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub configs: Vec<FileReference<ConfigId>>,
    /// For nodes to pull the image with. No part of what runs: see [`crate::TaskSpec::makes_same`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pull_credentials: Option<PullCredentials>,
}

/// What a registry is told. Never shown to users again.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PullCredentials {
    pub username: String,
    pub password: String,
    /// Used instead of name and password where not empty.
    pub identity_token: String,
}

// A password may not reach a log.
impl fmt::Debug for PullCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PullCredentials(…)")
    }
}

/// A grace period that does not end: a container that was asked to end is never killed.
pub const FOREVER: Duration = Duration::from_hours(24 * 365 * 100);

impl ContainerSpec {
    /// Says whether it gets files that are kept elsewhere: secrets or configs.
    pub fn has_files(&self) -> bool {
        !self.secrets.is_empty() || !self.configs.is_empty()
    }

    /// Says whether something is mounted that a release before this one mounts otherwise.
    pub fn has_mounts_beyond_names(&self) -> bool {
        self.mounts.iter().any(Mount::is_beyond_names)
    }

    /// The time between the stop signal and SIGKILL.
    pub fn grace(&self) -> Duration {
        self.stop_grace_period.unwrap_or(Duration::from_secs(10))
    }
}

/// A command that tells whether a container works. Zero durations mean Docker's defaults.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HealthCheck {
    /// `["NONE"]`, `["CMD", …]` or `["CMD-SHELL", command]`; empty: inherit the image's.
    pub test: Vec<String>,
    pub interval: Duration,
    pub timeout: Duration,
    pub start_period: Duration,
    pub start_interval: Duration,
    pub retries: u32,
}

/// How a container's processes are confined, beside their capabilities.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Security {
    pub seccomp: Seccomp,
    pub apparmor: AppArmor,
    /// No program gives its process more rights than it has, setuid or not.
    pub no_new_privileges: bool,
    /// Said by the user. Nothing follows from it: containers get no SELinux labels in any case.
    pub selinux_disabled: bool,
}

/// Which system calls processes may make.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Seccomp {
    /// Docker's own policy.
    #[default]
    Default,
    Unconfined,
    /// A profile in Docker's JSON.
    Custom(String),
}

/// An AppArmor profile, where the node's kernel has AppArmor.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AppArmor {
    /// The node's profile for containers.
    #[default]
    Default,
    Unconfined,
    /// One that was loaded on the node.
    Named(String),
}

/// A line of /etc/hosts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HostEntry {
    pub address: IpAddr,
    pub names: Vec<String>,
}

impl Default for HostEntry {
    fn default() -> Self {
        Self { address: IpAddr::V4(Ipv4Addr::UNSPECIFIED), names: Vec::new() }
    }
}

/// What a user wants in /etc/resolv.conf besides the built-in server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DnsConfig {
    pub nameservers: Vec<IpAddr>,
    pub search: Vec<String>,
    pub options: Vec<String>,
}

/// Something mounted into a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[expect(clippy::struct_excessive_bools, reason = "as many switches as Docker has")]
pub struct Mount {
    pub kind: MountKind,
    /// A host path (bind), a volume's name (volume; empty: anonymous), an image's name (image),
    /// nothing (tmpfs).
    pub source: String,
    pub target: String,
    pub read_only: bool,
    /// What a read-only mount has mounted below it can be written to all the same.
    pub read_only_not_below: bool,
    /// A read-only mount fails where what is mounted below it cannot be read-only, too.
    pub read_only_or_fail: bool,
    /// Between a bind and its source: which mounts that are made later are seen.
    pub propagation: Propagation,
    /// A bind without what is mounted below its source.
    pub not_below: bool,
    /// Makes a bind's source, a directory, where it is missing.
    pub make_source: bool,
    /// A volume begins empty, without what the image has at its place.
    pub no_copy: bool,
    /// Size of a tmpfs in bytes; 0: no limit.
    pub tmpfs_size: u64,
    pub tmpfs_mode: u32,
    /// Further options of a tmpfs, e.g. `exec` or `uid=7`.
    pub tmpfs_options: Vec<String>,
    /// Labels of a volume that is made for this mount.
    pub labels: Labels,
    /// The driver of a volume as the user named it; empty: the default one.
    pub volume_driver: String,
    /// What the driver is told of a volume that is made for this mount.
    #[serde(skip_serializing_if = "Labels::is_empty")]
    pub driver_options: Labels,
    /// What of a volume or an image is mounted, a path in it; empty: all of it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub subpath: String,
}

/// The driver of volumes that every node has.
pub const LOCAL_DRIVER: &str = "local";

impl Mount {
    /// The driver that a node must have for it beside its own: a plugin.
    pub fn plugin(&self) -> Option<&str> {
        let driver = self.volume_driver.as_str();
        let is_volume = self.kind == MountKind::Volume;
        (is_volume && !matches!(driver, "" | LOCAL_DRIVER)).then_some(driver)
    }

    /// Refuses what cannot be mounted by what its source and its subpath say, in Docker's words.
    pub fn check_source(&self) -> Result<(), Fault> {
        let kind = self.kind.as_str();
        let invalid = |why: &str| {
            Err(Fault::invalid(format!("invalid mount config for type \"{kind}\": {why}")))
        };
        match self.kind {
            MountKind::Bind | MountKind::Image if self.source.is_empty() => {
                return invalid("field Source must not be empty");
            }
            MountKind::Tmpfs if !self.source.is_empty() => {
                return invalid("field Source must not be specified");
            }
            MountKind::Volume if self.source.is_empty() && !self.subpath.is_empty() => {
                return invalid("must not set Subpath when using anonymous volumes");
            }
            MountKind::Bind | MountKind::Image | MountKind::Tmpfs | MountKind::Volume => {}
        }
        let takes_subpath = matches!(self.kind, MountKind::Volume | MountKind::Image);
        if !(self.subpath.is_empty() || takes_subpath && is_local(&self.subpath)) {
            return invalid("subpath must be a relative path within the volume");
        }
        Ok(())
    }

    /// Says whether a release that knows volumes by their names alone would mount something else.
    pub fn is_beyond_names(&self) -> bool {
        self.kind == MountKind::Image
            || self.plugin().is_some()
            || !self.driver_options.is_empty()
            || !self.subpath.is_empty()
    }
}

/// Says whether a path leads nowhere but down, links aside.
fn is_local(path: &str) -> bool {
    let mut depth = 0_usize;
    for part in Path::new(path).components() {
        match part {
            Component::Normal(_) => depth += 1,
            Component::CurDir => {}
            Component::ParentDir if 0 < depth => depth -= 1,
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return false,
        }
    }
    true
}

/// mount_namespaces(7): with `R`, also for mounts below.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Propagation {
    #[default]
    Rprivate,
    Private,
    Rshared,
    Shared,
    Rslave,
    Slave,
}

impl Propagation {
    pub const ALL: [Self; 6] =
        [Self::Rprivate, Self::Private, Self::Rshared, Self::Shared, Self::Rslave, Self::Slave];

    /// Docker's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rprivate => "rprivate",
            Self::Private => "private",
            Self::Rshared => "rshared",
            Self::Shared => "shared",
            Self::Rslave => "rslave",
            Self::Slave => "slave",
        }
    }

    /// Reads Docker's word.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.as_str() == text)
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MountKind {
    Bind,
    #[default]
    Volume,
    Tmpfs,
    /// What is in an image, to be read alone.
    Image,
}

impl MountKind {
    pub const ALL: [Self; 4] = [Self::Bind, Self::Volume, Self::Tmpfs, Self::Image];

    /// Docker's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bind => "bind",
            Self::Volume => "volume",
            Self::Tmpfs => "tmpfs",
            Self::Image => "image",
        }
    }

    /// Reads Docker's word.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.as_str() == text)
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Ulimit {
    pub name: String,
    pub soft: i64,
    pub hard: i64,
}

/// What a task may use (limits) and what is kept for it (reservations). Zero: no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Resources {
    pub limit_nano_cpus: i64,
    pub limit_memory: i64,
    pub limit_pids: i64,
    pub reserve_nano_cpus: i64,
    pub reserve_memory: i64,
    /// Bytes of swap besides a limit of memory; -1: no limit; `None`: as much again as memory.
    pub swap: Option<i64>,
    /// 0 to 100: how gladly the kernel swaps; `None`: the node's own setting.
    pub swappiness: Option<i64>,
}

/// When a task that ended is replaced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RestartPolicy {
    pub condition: RestartCondition,
    /// Between the end of a task and the start of its replacement.
    pub delay: Duration,
    /// 0: no limit.
    pub max_attempts: u64,
    /// Attempts are counted within this time; zero: for ever.
    pub window: Duration,
}

impl Default for RestartPolicy {
    fn default() -> Self {
        Self {
            condition: RestartCondition::Any,
            delay: Duration::from_secs(5),
            max_attempts: 0,
            window: Duration::ZERO,
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestartCondition {
    None,
    OnFailure,
    #[default]
    Any,
}
