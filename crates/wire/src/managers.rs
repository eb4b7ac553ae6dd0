//! What managers say to each other: the log's own messages, and what users asked of a manager that
//! does not lead.

use crate::{IssueReply, IssueRequest, LogLine, LogOptions, Release};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::net::IpAddr;
use types::{
    ClusterSpec, ConfigId, Fault, FileSpec, NetworkId, NetworkSpec, NodeId, NodeSpec, RootCa,
    SecretId, ServiceId, ServiceSpec, TaskId, Version,
};

/// A message of the log, and its answer. The log alone knows what is in it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RaftMessage {
    /// The sender's number in the log's membership.
    pub from: u64,
    /// The sender's generation of the cluster.
    #[serde(skip_serializing_if = "is_zero")]
    pub generation: u64,
    #[serde(with = "types::octets")]
    pub body: Vec<u8>,
}

/// Which join tokens, and whether the unlock key, are drawn anew, and which root takes the place of the cluster's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Rotate {
    pub worker: bool,
    pub manager: bool,
    /// As the user gives it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root: Option<RootCa>,
    #[serde(skip_serializing_if = "is_false")]
    pub unlock_key: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands in a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands in a reference")]
fn is_false(value: &bool) -> bool {
    !value
}

/// What a user wants changed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Order {
    CreateService {
        spec: Box<ServiceSpec>,
    },
    /// Without a spec: back to the one before the last update.
    UpdateService {
        id: ServiceId,
        version: Version,
        spec: Option<Box<ServiceSpec>>,
    },
    RemoveService {
        id: ServiceId,
    },
    CreateNetwork {
        spec: NetworkSpec,
    },
    RemoveNetwork {
        id: NetworkId,
    },
    CreateSecret {
        spec: FileSpec,
    },
    /// Without content: as it is.
    UpdateSecret {
        id: SecretId,
        version: Version,
        spec: FileSpec,
    },
    RemoveSecret {
        id: SecretId,
    },
    CreateConfig {
        spec: FileSpec,
    },
    UpdateConfig {
        id: ConfigId,
        version: Version,
        spec: FileSpec,
    },
    RemoveConfig {
        id: ConfigId,
    },
    UpdateNode {
        id: NodeId,
        version: Version,
        spec: NodeSpec,
    },
    RemoveNode {
        id: NodeId,
        force: bool,
    },
    /// The manager becomes a worker, to leave; answered once it is.
    Resign {
        id: NodeId,
    },
    /// Another manager is to lead: the one that is named, or whichever is best prepared.
    Transfer {
        to: Option<NodeId>,
    },
    UpdateCluster {
        version: Version,
        spec: ClusterSpec,
        rotate: Rotate,
    },
    /// A machine with a token wants to become a node; where it calls from.
    Join {
        request: IssueRequest,
        from: Option<IpAddr>,
    },
}

/// A manager passes on what it was asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OrderRequest {
    pub release: Release,
    pub order: Order,
}

/// It is done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct OrderReply {
    /// Views from this version on show it.
    pub version: Version,
    /// The id of what was made.
    pub id: String,
    /// To [`Order::Join`].
    pub issued: Option<IssueReply>,
}

/// A manager asks from which version on its view is not older than this question.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BarrierRequest {
    pub release: Release,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BarrierReply {
    pub version: Version,
    /// Managers that the leader does not hear.
    pub unreachable: BTreeSet<u64>,
}

/// Whose logs are wanted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogSelector {
    Task(TaskId),
    /// All tasks of a service, also those that come later.
    Service(ServiceId),
}

/// A manager follows logs for its user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogsRequest {
    pub release: Release,
    pub selector: LogSelector,
    pub options: LogOptions,
}

/// A line, or why a node's part is missing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogItem(pub Result<LogLine, Fault>);
