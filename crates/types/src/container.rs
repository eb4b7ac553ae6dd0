//! What a user wants to run in a container.

use crate::Labels;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

/// A container as a user describes it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
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

impl ContainerSpec {
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

/// A line of /etc/hosts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostEntry {
    pub address: IpAddr,
    pub names: Vec<String>,
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
pub struct Mount {
    pub kind: MountKind,
    /// A host path (bind), a volume's name (volume; empty: anonymous), nothing (tmpfs).
    pub source: String,
    pub target: String,
    pub read_only: bool,
    /// Size of a tmpfs in bytes; 0: no limit.
    pub tmpfs_size: u64,
    pub tmpfs_mode: u32,
    /// Labels of a volume that is made for this mount.
    pub labels: Labels,
    /// The driver of a volume as the user named it; empty: the default one.
    pub volume_driver: String,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MountKind {
    Bind,
    #[default]
    Volume,
    Tmpfs,
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
