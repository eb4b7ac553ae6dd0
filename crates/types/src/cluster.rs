//! The cluster itself: settings, tokens and the root of trust.

use crate::{ClusterId, Labels, LogDriver, Meta, NodeId, Timestamp};
use ipnet::{IpNet, Ipv4Net};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;
use std::time::Duration;

/// Where subnets come from if the user does not say.
pub const DEFAULT_POOL: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(10, 0, 0, 0), 8);

/// The longest time that a certificate may hold which an external CA has signed.
pub const EXTERNAL_VALIDITY_MAX: Duration = Duration::from_hours(10 * 365 * 24);

/// Entries that stay behind a snapshot where the user does not say.
const KEPT_ENTRIES: u64 = 500;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Cluster {
    pub id: ClusterId,
    pub meta: Meta,
    pub spec: ClusterSpec,
    pub tokens: JoinTokens,
    pub root_ca: RootCa,
    /// The root that takes its place, while nodes still get their certificates from it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root_rotation: Option<RootRotation>,
    /// What opens the keys of managers; empty where they are not locked.
    #[serde(skip_serializing_if = "SecretText::is_empty")]
    pub unlock_key: SecretText,
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
    /// How often one manager went on alone with all that there is: managers of an earlier generation
    /// were given up, and are not heard.
    #[serde(skip_serializing_if = "is_zero")]
    pub generation: u64,
    /// Nodes that were removed, until nothing can be valid any more that they can show.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub removed: BTreeMap<NodeId, Timestamp>,
}

impl Cluster {
    /// The roots that nodes trust, one after the other in PEM: the cluster's own first.
    pub fn roots(&self) -> String {
        let next = self.root_rotation.as_ref().map(|next| next.certificate.as_str());
        [&self.root_ca.certificate, next.unwrap_or_default()].concat()
    }

    /// Where those are asked who sign by this root (PEM) of the cluster's, in turn.
    pub fn external_cas_of<'a>(&'a self, root: &'a str) -> impl Iterator<Item = &'a str> {
        let of_it = self.spec.external_cas.iter().filter(move |ca| ca.certificate == root);
        of_it.map(|ca| ca.url.as_str())
    }

    /// Notes that a node was removed, and forgets those that can show nothing any more.
    pub fn note_removed(&mut self, node: NodeId, now: Timestamp) {
        let mut validity =
            self.spec.certificate_validity.max(ClusterSpec::default().certificate_validity);
        if self.root_ca.key.is_empty() || !self.spec.external_cas.is_empty() {
            validity = validity.max(EXTERNAL_VALIDITY_MAX);
        }
        self.removed.retain(|_, until| now < *until);
        self.removed.insert(node, now.after(validity));
    }

    /// The root that certificates are to be by.
    pub fn wanted_root(&self) -> &str {
        let next = self.root_rotation.as_ref().map(|next| &next.certificate);
        next.unwrap_or(&self.root_ca.certificate)
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands in a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands in a reference")]
fn is_usual(entries: &u64) -> bool {
    *entries == KEPT_ENTRIES
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands in a reference")]
fn is_false(value: &bool) -> bool {
    !value
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
    /// Snapshots that stay on managers' disks before the newest one.
    #[serde(skip_serializing_if = "is_zero")]
    pub kept_snapshots: u64,
    /// Entries that stay in the log behind a snapshot, for managers that lag.
    #[serde(skip_serializing_if = "is_usual")]
    pub kept_entries: u64,
    /// Where the output of tasks goes whose service says nothing of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_driver: Option<LogDriver>,
    /// Another number than before asks for another root of the cluster.
    #[serde(skip_serializing_if = "is_zero")]
    pub force_rotate: u64,
    /// Managers that start wait for the unlock key.
    #[serde(skip_serializing_if = "is_false")]
    pub autolock: bool,
    /// Who signs certificates in the managers' place.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub external_cas: Vec<ExternalCa>,
}

/// Who has the key of a root, and signs by the protocol of CFSSL what managers ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ExternalCa {
    /// Where it is asked.
    pub url: String,
    /// The root (PEM): it signs by it, and shows a certificate by it itself.
    pub certificate: String,
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
            kept_snapshots: 0,
            kept_entries: KEPT_ENTRIES,
            log_driver: None,
            force_rotate: 0,
            autolock: false,
            external_cas: Vec::new(),
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

/// The root certificate and its key, both PEM; the key is empty where an external CA alone has it.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RootCa {
    pub certificate: String,
    pub key: String,
}

/// A root on its way to be the cluster's. Whoever knows the old root alone trusts what it signs, by
/// way of `cross_signed`.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RootRotation {
    /// PEM, as all here.
    pub certificate: String,
    pub key: String,
    /// Its name and key in a certificate that the old root has signed.
    pub cross_signed: String,
}

/// Who signed a certificate, in DER: its subject and its public key. A root has one and the same in
/// its own certificate and in one that is cross-signed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Issuer {
    #[serde(with = "crate::octets")]
    pub subject: Vec<u8>,
    #[serde(with = "crate::octets")]
    pub public_key: Vec<u8>,
}

impl Issuer {
    /// Says whether nobody knows it: releases before this one do not say.
    pub fn is_unknown(&self) -> bool {
        self.public_key.is_empty()
    }
}

/// A text that is secret.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SecretText(pub String);

impl SecretText {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

// Neither tokens nor keys may reach a log.
impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretText(…)")
    }
}

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

impl fmt::Debug for RootRotation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RootRotation(…)")
    }
}
