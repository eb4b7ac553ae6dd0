//! What nodes say to each other.
//!
//! Invariant: fields are only added, never renamed or given another meaning; golden bytes in the
//! tests hold every message to it.

use crate::{Parts, Release};
use discovery::{Knowledge, KnowledgeDifference};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use types::{
    Availability, ConfigId, Fault, FileContent, Issuer, NodeDescription, NodeId, NodeRole,
    SecretId, SharedSpec, SpecId, Task, TaskId, TaskStatus, Timestamp,
};

/// A machine asks to become a node. The only calls that need no client certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct IssueRequest {
    pub release: Release,
    /// A join token; empty when a node renews its certificate (then the call needs the old one).
    pub token: String,
    /// PEM of the certificate signing request.
    pub csr: String,
    /// What a node that joins is to take; nothing to one that renews.
    pub availability: Availability,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct IssueReply {
    pub node: NodeId,
    pub role: NodeRole,
    /// PEM: the node's certificate, and what stands between it and a root.
    pub certificate: String,
    /// PEM: the root certificates that are trusted, the cluster's first.
    pub root: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RootRequest {
    pub release: Release,
}

/// The root certificate; the joining machine compares its digest with the token's. It is what a
/// manager says first, so it says the manager's release.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RootReply {
    pub release: Release,
    pub root: String,
}

/// A node opens its session: it is there, and this is what it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SessionRequest {
    pub release: Release,
    pub description: NodeDescription,
    /// Where other nodes reach it.
    #[serde(with = "types::plain")]
    pub address: IpAddr,
    /// Its VXLAN end point, where that is another address.
    #[serde(with = "types::plain")]
    pub data_path_address: Option<IpAddr>,
    /// It is about to leave: it gets no new tasks.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub leaving: bool,
}

impl Default for SessionRequest {
    fn default() -> Self {
        Self {
            release: Release::default(),
            description: NodeDescription::default(),
            address: Ipv4Addr::UNSPECIFIED.into(),
            data_path_address: None,
            leaving: false,
        }
    }
}

/// What a session's stream carries. The first message is a `Welcome`, the second `Whole`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum SessionMessage {
    Welcome(Welcome),
    /// All a node should have. What it has besides is taken down.
    Whole(Assignments),
    /// What changed since the last message of this session.
    Difference(Difference),
    /// Send the logs of tasks by `publish_logs`.
    Logs(LogRequest),
    /// The log subscription is over.
    LogsDone(String),
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Welcome {
    pub release: Release,
    pub session: String,
    pub node: NodeId,
    pub heartbeat_millis: u64,
    /// Managers' RPC addresses, `host:port`.
    pub managers: Vec<String>,
    pub data_path_port: u16,
    /// What the node is now: one whose certificate says otherwise gets a new one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<NodeRole>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Assignments {
    /// Rises with every message of a session.
    pub version: u64,
    /// What the tasks are made from, once for all that are made from it.
    pub specs: Parts<SpecId, SharedSpec>,
    /// The same where it has secrets or configs: a release that knows none of these must not take
    /// such a task for one without.
    #[serde(skip_serializing_if = "is_empty")]
    pub specs_with_files: Parts<SpecId, SharedSpec>,
    /// What tasks need that have not started yet.
    #[serde(skip_serializing_if = "has_none")]
    pub secrets: Parts<SecretId, FileContent>,
    #[serde(skip_serializing_if = "has_none")]
    pub configs: Parts<ConfigId, FileContent>,
    /// Each names its spec.
    pub tasks: Parts<TaskId, Task>,
    /// Tasks that every live node has taken out of names and balancers: they may be stopped.
    pub withdrawn: BTreeSet<TaskId>,
    pub knowledge: Knowledge,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Difference {
    /// The version it applies to, and the one it leads to.
    pub from: u64,
    pub version: u64,
    /// What tasks are made from that was not said in this session, or was removed since.
    #[serde(skip_serializing_if = "is_empty")]
    pub specs: Parts<SpecId, SharedSpec>,
    #[serde(skip_serializing_if = "is_empty")]
    pub specs_with_files: Parts<SpecId, SharedSpec>,
    /// Those that tasks need from now on.
    #[serde(skip_serializing_if = "has_none")]
    pub secrets: Parts<SecretId, FileContent>,
    #[serde(skip_serializing_if = "has_none")]
    pub configs: Parts<ConfigId, FileContent>,
    /// No task needs them any more.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub removed_secrets: BTreeSet<SecretId>,
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub removed_configs: BTreeSet<ConfigId>,
    /// No task of the node is made from these any more.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub removed_specs: BTreeSet<SpecId>,
    pub tasks: Parts<TaskId, Task>,
    pub removed_tasks: BTreeSet<TaskId>,
    /// Whole, where it changed.
    pub withdrawn: Option<BTreeSet<TaskId>>,
    pub knowledge: KnowledgeDifference,
}

fn is_empty(specs: &Parts<SpecId, SharedSpec>) -> bool {
    specs.is_empty()
}

fn has_none<I>(contents: &Parts<I, FileContent>) -> bool {
    contents.is_empty()
}

/// A node is alive. The reply says when the next one is due.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Heartbeat {
    pub session: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HeartbeatReply {
    pub next_millis: u64,
    /// Managers' RPC addresses, `host:port`; empty: as before.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub managers: Vec<String>,
    /// Where the node does not have it yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trust: Option<Trust>,
}

/// What a node is to trust, and by whom its own certificate is to be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Trust {
    /// PEM: the roots, the cluster's first.
    pub roots: String,
    /// A node whose certificate somebody else has signed renews it now. `None`: it has time.
    pub issuer: Option<Issuer>,
}

/// The node's kernel and names hold this version of its assignments.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Acknowledge {
    pub session: String,
    pub version: u64,
}

/// What a node observed of its tasks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Report {
    pub session: String,
    pub statuses: BTreeMap<TaskId, TaskStatus>,
    /// By the node's clock, as the times in `statuses` are: managers take from them how long ago
    /// something was. Zero where the node does not say.
    pub sent_at: Timestamp,
    /// What of the node's network does not work, in plain words; empty where all does. `None`: as
    /// it was said last.
    pub trouble: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Done {}

/// A node leaves, in two steps: its tasks go in order while all is as before; then it goes for good.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LeaveRequest {
    /// The first step.
    pub tasks_first: bool,
}

/// A node whose certificate is a manager's asks for its part in the log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EnrollRequest {
    pub release: Release,
    /// Where managers and nodes will reach it, `host:port`.
    pub address: String,
}

/// A manager that was away asks whether it is still who it was in the log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NumberRequest {
    pub release: Release,
    /// The number that it has.
    pub raft_id: u64,
    /// Where managers and nodes reach it now, `host:port`.
    pub address: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EnrollReply {
    pub release: Release,
    /// Its number in the log's membership; 0 where it asked for the one it has, and has none.
    pub raft_id: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LogRequest {
    pub subscription: String,
    /// The tasks of this node whose logs are wanted.
    pub tasks: BTreeSet<TaskId>,
    pub options: LogOptions,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LogOptions {
    pub follow: bool,
    pub stdout: bool,
    pub stderr: bool,
    /// The last lines only; `None`: all.
    pub tail: Option<u64>,
    pub since: Option<Timestamp>,
    pub until: Option<Timestamp>,
}

/// Part of a log, from a node to the manager that asked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LogChunk {
    pub subscription: String,
    pub lines: Vec<LogLine>,
    /// This node has no more (it does not follow, or failed: then `error` says why).
    pub end: bool,
    pub error: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LogLine {
    pub task: TaskId,
    pub node: NodeId,
    pub stderr: bool,
    pub time: Timestamp,
    /// With its line end, if it had one.
    #[serde(with = "types::octets")]
    pub text: Vec<u8>,
}

/// The answer of every unary call: the reply or a fault for the user.
pub type Answer<T> = Result<T, Fault>;
