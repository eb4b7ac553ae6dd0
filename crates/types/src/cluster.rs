//! The cluster itself: settings, tokens and the root of trust.

use crate::{ClusterId, Labels, LogDriver, Meta};
use ipnet::{IpNet, Ipv4Net};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::Ipv4Addr;
use std::time::Duration;

/// Where subnets come from if the user does not say.
pub const DEFAULT_POOL: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(10, 0, 0, 0), 8);

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Cluster {
    pub id: ClusterId,
    pub meta: Meta,
    pub spec: ClusterSpec,
    pub tokens: JoinTokens,
    pub root_ca: RootCa,
    /// Where subnets of networks come from.
    #[serde(with = "crate::plain")]
    pub address_pools: Vec<IpNet>,
    /// The length of an IPv4 subnet's prefix; an IPv6 subnet's is 64.
    pub subnet_prefix: u8,
    /// The UDP port of the overlay.
    pub data_path_port: u16,
    /// The last number that a manager got in the log's membership; 0: the first one's, which is 1.
    #[serde(skip_serializing_if = "is_zero")]
    pub last_raft_id: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands in a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClusterSpec {
    pub name: String,
    pub labels: Labels,
    /// Ended tasks kept for each slot.
    pub task_history_limit: u64,
    pub heartbeat: Duration,
    pub certificate_validity: Duration,
    pub snapshot_interval: u64,
    /// Where the output of tasks goes whose service says nothing of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_driver: Option<LogDriver>,
}

impl Default for ClusterSpec {
    fn default() -> Self {
        Self {
            name: "default".to_owned(),
            labels: Labels::new(),
            task_history_limit: 5,
            heartbeat: Duration::from_secs(5),
            certificate_validity: Duration::from_hours(90 * 24),
            snapshot_interval: 10_000,
            log_driver: None,
        }
    }
}

/// The tokens that let a machine join.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct JoinTokens {
    pub worker: String,
    pub manager: String,
}

/// The root certificate and its key, both PEM.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RootCa {
    pub certificate: String,
    pub key: String,
}

// Neither tokens nor keys may reach a log.
impl fmt::Debug for JoinTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JoinTokens(…)")
    }
}

impl fmt::Debug for RootCa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RootCa(…)")
    }
}
