//! The cluster's words: what users want, what was decided, what was observed.
//!
//! Nothing here waits, reads a clock or touches a file. The types serialise with their field names;
//! a reader ignores fields it does not know and fills in those that are missing, so that managers
//! and agents of neighbouring versions understand each other.
//!
//! Start with [`Service`] (what a user wants), [`Task`] (what the cluster made of it) and
//! [`TaskState::may_become`] (who may move a task on).
//!
//! Invariant: a task's state only ever rises, and every state is left by exactly one writer.

mod access;
mod address;
mod affinity;
mod causes;
mod cluster;
mod constraint;
mod container;
mod fault;
mod file;
pub mod generic;
mod id;
mod meta;
mod name;
mod network;
mod node;
mod node_network;
pub mod octets;
mod payload;
mod placement;
pub mod plain;
mod port;
mod quantity;
mod service;
mod spec;
mod state;
mod task;
pub mod template;
mod text;

pub use access::{
    ACCESS_LABELS, Asked as AskedAccess, Device, DeviceRequest, DeviceRule, Joined, NodeAccess,
    check_cgroup_parent, is_cdi_name,
};
pub use address::{Addresses, mac_of};
pub use affinity::Affinity;
pub use causes::{causes, chain};
pub use cluster::{
    Cluster, ClusterSpec, DEFAULT_POOL, EXTERNAL_VALIDITY_MAX, ExternalCa, Issuer, JoinTokens,
    RootCa, RootRotation, SecretText,
};
pub use constraint::{Constraint, ConstraintError};
pub use container::{
    AppArmor, ContainerSpec, DnsConfig, FOREVER, HealthCheck, HostEntry, LOCAL_DRIVER, Mount,
    MountKind, Propagation, PullCredentials, Resources, RestartCondition, RestartPolicy, Seccomp,
    Security, Ulimit,
};
pub use fault::{Fault, FaultKind, Retry};
pub use file::{
    Config, FILE_MODE, FileContent, FileReference, FileSpec, FileTarget, GivenFile, Secret,
    Templating,
};
pub use generic::{Amount, GenericReservations, GenericResources};
pub use id::{
    ClusterId, ConfigId, IdSource, NetworkId, NodeId, SecretId, ServiceId, SpecId, TaskId,
};
pub use meta::{Meta, Timestamp, Version};
pub use name::check_name;
pub use network::{Network, NetworkSpec, Subnet, one_or_more, overlap};
pub use node::{
    Availability, DRAIN_LABEL, DRAIN_PACED, EngineInfo, ManagerStatus, Node, NodeDescription,
    NodeRole, NodeSpec, NodeState, NodeStatus, Platform, Plugin,
};
pub use node_network::NodeNetwork;
pub use payload::Payload;
pub use placement::{Placement, Preference};
pub use port::{Protocol, PublishMode, PublishedPort};
pub use quantity::{parse_duration, parse_size};
pub use service::{
    EndpointMode, EndpointSpec, FailureAction, JobStatus, LogDriver, NetworkAttachment,
    REBALANCE_LABEL, REBALANCE_ON, SCHEDULE_LABEL, STACK_LABEL, STICKY_LABEL, Service, ServiceMode,
    ServiceSpec, Slot, TaskSpec, UpdateConfig, UpdateOrder, UpdateState, UpdateStatus, Vip,
};
pub use spec::{SharedSpec, Specs, UnknownSpec};
pub use state::{DesiredState, TaskState, Writer};
pub use task::{Attachment, ContainerStatus, Refresh, TASK_LABEL, Task, TaskStatus};

/// Labels and other sets of names with values, in a stable order.
pub type Labels = std::collections::BTreeMap<String, String>;
