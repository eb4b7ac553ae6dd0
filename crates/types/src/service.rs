//! Services: what a user wants to keep running, and how it is reached.

use crate::{
    Addresses, AskedAccess, ContainerSpec, GenericReservations, Labels, Meta, MountKind, NetworkId,
    NodeId, NodeNetwork, Placement, PublishedPort, Resources, RestartPolicy, ServiceId, SharedSpec,
    Timestamp,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// The label of everything that belongs to a stack; its value is the stack's name.
pub const STACK_LABEL: &str = "com.docker.stack.namespace";

/// The label that says when a job is to be run, e.g. `30 3 * * 1-5` or `@hourly`.
pub const SCHEDULE_LABEL: &str = "skep.schedule";

/// A service: the user's spec and what the allocator gave it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Service {
    pub id: ServiceId,
    pub meta: Meta,
    pub spec: ServiceSpec,
    /// The spec before the last update, for a rollback.
    pub previous_spec: Option<ServiceSpec>,
    /// Published ports with their numbers; written by the allocator.
    pub ports: Vec<PublishedPort>,
    /// One for each network of the service in VIP mode; written by the allocator.
    pub vips: Vec<Vip>,
    /// Written by the update orchestrator.
    pub update: Option<UpdateStatus>,
    /// Why the allocator could not serve the spec yet; empty when it could.
    pub allocation_error: String,
    /// How often a job was run; only jobs have it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job: Option<JobStatus>,
    /// The node that each slot was on last; only services that are sticky have it. Written by the
    /// scheduler.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub homes: BTreeMap<u64, NodeId>,
}

/// The label of a service that says whether its slots go back to the nodes that they were on, where
/// their volumes are.
pub const STICKY_LABEL: &str = "skep.sticky";
const ON: &str = "on";
const OFF: &str = "off";

/// The label of a service that says whether its tasks are spread anew where nodes have come, and the
/// value for: they are.
pub const REBALANCE_LABEL: &str = "skep.rebalance";
pub const REBALANCE_ON: &str = "on";

impl Service {
    /// Says whether its tasks are spread anew where nodes have come.
    pub fn is_rebalanced(&self) -> bool {
        let asks = self.spec.labels.get(REBALANCE_LABEL).is_some_and(|value| value == REBALANCE_ON);
        asks && !self.spec.mode.is_job() && !self.is_sticky()
    }

    /// What it is made from, and what it may be rolled back to.
    pub fn specs(&self) -> impl Iterator<Item = &ServiceSpec> {
        [&self.spec].into_iter().chain(&self.previous_spec)
    }

    /// Says whether its slots go back to the nodes that they were on.
    pub fn is_sticky(&self) -> bool {
        self.spec.is_sticky()
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ServiceSpec {
    pub name: String,
    pub labels: Labels,
    pub task: SharedSpec,
    pub mode: ServiceMode,
    pub endpoint: EndpointSpec,
    pub update: UpdateConfig,
    pub rollback: UpdateConfig,
}

impl ServiceSpec {
    /// Says whether slots go back to the nodes that they were on.
    pub fn is_sticky(&self) -> bool {
        let has_slots = !self.mode.is_job() && !self.mode.is_global();
        has_slots && self.labels.get(STICKY_LABEL).is_some_and(|value| value == ON)
    }

    /// Refuses a label [`STICKY_LABEL`] that says nothing, or nothing of this service.
    pub fn check_sticky(&self) -> Result<(), String> {
        match self.labels.get(STICKY_LABEL).map(String::as_str) {
            Some(ON) if self.mode.is_job() || self.mode.is_global() => Err(format!(
                "label {STICKY_LABEL}: only a service of mode replicated has slots that can be sticky"
            )),
            None | Some(ON | OFF) => Ok(()),
            Some(other) => Err(format!("label {STICKY_LABEL}: \"{other}\" is none of on, off")),
        }
    }
}

/// What every task of a service is made from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TaskSpec {
    pub container: ContainerSpec,
    pub resources: Resources,
    pub restart: RestartPolicy,
    pub placement: Placement,
    pub networks: Vec<NetworkAttachment>,
    pub log_driver: String,
    pub log_options: Labels,
    /// Counts up to force an update without another change.
    pub force_update: u64,
    /// Kept for it on its node, besides what `resources` has.
    #[serde(skip_serializing_if = "GenericReservations::is_empty")]
    pub generic: GenericReservations,
}

impl TaskSpec {
    /// Where its output is to go; `None`: it says nothing of it.
    pub fn own_log(&self) -> Option<LogDriver> {
        let Self { log_driver: name, log_options: options, .. } = self;
        let is_said = !name.is_empty() || !options.is_empty();
        is_said.then(|| LogDriver { name: name.clone(), options: options.clone() })
    }

    /// The network of each node's own that its tasks are on, where it names one.
    pub fn node_network(&self) -> Option<NodeNetwork> {
        self.networks.iter().find_map(|wish| NodeNetwork::of(&wish.target))
    }

    /// The networks of the cluster that it names.
    pub fn overlays(&self) -> impl Iterator<Item = &NetworkAttachment> {
        self.networks.iter().filter(|wish| NodeNetwork::of(&wish.target).is_none())
    }

    /// Says whether it asks for anything of its node's own, beyond what Docker's services have.
    pub fn asks_of_node(&self) -> bool {
        AskedAccess::is_in(&self.container.labels) || self.node_network().is_some()
    }

    /// Says whether both make the same task: what one spells out may be what the other has anyway.
    /// Credentials for a registry are only for pulling: other ones make no other task.
    pub fn makes_same(&self, other: &Self) -> bool {
        self == other || self.spelled_out() == other.spelled_out()
    }

    /// The same task with every default written out, and without credentials.
    pub(crate) fn spelled_out(&self) -> Self {
        let mut spec = self.clone();
        let container = &mut spec.container;
        container.pull_credentials = None;
        container.stop_grace_period = Some(container.grace());
        container.init.get_or_insert(false);
        container.health.get_or_insert_default();
        for mount in container.mounts.iter_mut().filter(|mount| mount.kind == MountKind::Tmpfs) {
            if mount.tmpfs_mode == 0 {
                mount.tmpfs_mode = 0o1777;
            }
        }
        spec
    }
}

/// Where the output of a process goes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LogDriver {
    /// Empty: the node's default.
    pub name: String,
    pub options: Labels,
}

/// A wish to be on a network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NetworkAttachment {
    /// An id in the store; the API resolves names before.
    pub target: NetworkId,
    /// Further names of the service on this network.
    pub aliases: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ServiceMode {
    Replicated {
        replicas: u64,
    },
    Global,
    /// A job: tasks run until so many have completed, and never more at once than it says.
    #[serde(rename = "replicated-job")]
    ReplicatedJob {
        max_concurrent: u64,
        total_completions: u64,
    },
    /// A job: one task on every node runs until it has completed.
    #[serde(rename = "global-job")]
    GlobalJob,
}

impl ServiceMode {
    /// The word the Engine API uses.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Replicated { .. } => "replicated",
            Self::Global => "global",
            Self::ReplicatedJob { .. } => "replicated-job",
            Self::GlobalJob => "global-job",
        }
    }

    /// Says whether its tasks are to come to an end: they are run, not kept running.
    pub fn is_job(self) -> bool {
        match self {
            Self::ReplicatedJob { .. } | Self::GlobalJob => true,
            Self::Replicated { .. } | Self::Global => false,
        }
    }

    /// Says whether each node that may run it has a task.
    pub fn is_global(self) -> bool {
        match self {
            Self::Global | Self::GlobalJob => true,
            Self::Replicated { .. } | Self::ReplicatedJob { .. } => false,
        }
    }
}

/// How often a job was run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct JobStatus {
    /// Rises whenever the job is to be run anew. A task says of which iteration it is.
    pub iteration: u64,
    /// When this iteration was begun; `None`: it waits for the time of its schedule.
    pub last_execution: Option<Timestamp>,
    /// The newest time of its schedule for which the job was run or not; of a job without one, or
    /// before the first, when the schedule was set.
    pub scheduled: Option<Timestamp>,
}

impl JobStatus {
    /// The number of the run that comes next: one that has not begun yet has its own still.
    pub fn next_iteration(&self) -> u64 {
        self.iteration + u64::from(self.last_execution.is_some())
    }
}

impl Default for ServiceMode {
    fn default() -> Self {
        Self::Replicated { replicas: 1 }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EndpointSpec {
    pub mode: EndpointMode,
    pub ports: Vec<PublishedPort>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EndpointMode {
    /// One address that the kernel balances over the tasks.
    #[default]
    Vip,
    /// The service's name answers with the tasks' own addresses.
    Dnsrr,
}

/// The virtual addresses of a service on one network.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default)]
pub struct Vip {
    pub network: NetworkId,
    #[serde(alias = "address")]
    pub addresses: Addresses,
}

/// How tasks are replaced when the spec changes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct UpdateConfig {
    /// 0: all at once.
    pub parallelism: u64,
    pub delay: Duration,
    pub failure_action: FailureAction,
    pub monitor: Duration,
    pub max_failure_ratio: f32,
    pub order: UpdateOrder,
}

impl Default for UpdateConfig {
    fn default() -> Self {
        Self {
            parallelism: 1,
            delay: Duration::ZERO,
            failure_action: FailureAction::Pause,
            monitor: Duration::from_secs(5),
            max_failure_ratio: 0.0,
            order: UpdateOrder::StopFirst,
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FailureAction {
    #[default]
    Pause,
    Continue,
    Rollback,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UpdateOrder {
    #[default]
    StopFirst,
    StartFirst,
}

/// How far an update is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct UpdateStatus {
    pub state: UpdateState,
    pub started_at: Timestamp,
    pub completed_at: Option<Timestamp>,
    pub message: String,
    /// The slots whose new tasks failed, and since when: history is kept for another time.
    pub failed: BTreeMap<Slot, Timestamp>,
}

impl Default for UpdateStatus {
    fn default() -> Self {
        Self {
            state: UpdateState::Updating,
            started_at: Timestamp::default(),
            completed_at: None,
            message: String::new(),
            failed: BTreeMap::new(),
        }
    }
}

/// A place in a service that one task fills at a time.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Slot {
    /// Of a replicated service, from 1.
    Number(u64),
    /// Of a global service.
    Node(NodeId),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UpdateState {
    Updating,
    Paused,
    Completed,
    RollbackStarted,
    RollbackPaused,
    RollbackCompleted,
}

impl UpdateState {
    /// Docker's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Updating => "updating",
            Self::Paused => "paused",
            Self::Completed => "completed",
            Self::RollbackStarted => "rollback_started",
            Self::RollbackPaused => "rollback_paused",
            Self::RollbackCompleted => "rollback_completed",
        }
    }
}

impl UpdateStatus {
    /// An update, or the way back from one, that starts now.
    pub fn begun(state: UpdateState, now: Timestamp, message: &str) -> Self {
        Self {
            state,
            started_at: now,
            completed_at: None,
            message: message.to_owned(),
            failed: BTreeMap::new(),
        }
    }

    /// Says whether tasks are replaced, or were, because the service went back to an earlier spec.
    pub fn is_rollback(&self) -> bool {
        match self.state {
            UpdateState::Updating | UpdateState::Paused | UpdateState::Completed => false,
            UpdateState::RollbackStarted
            | UpdateState::RollbackPaused
            | UpdateState::RollbackCompleted => true,
        }
    }

    /// Says whether it is neither paused nor completed.
    pub fn runs(&self) -> bool {
        match self.state {
            UpdateState::Updating | UpdateState::RollbackStarted => true,
            UpdateState::Paused
            | UpdateState::Completed
            | UpdateState::RollbackPaused
            | UpdateState::RollbackCompleted => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{HealthCheck, Mount, PullCredentials};

    #[test]
    fn defaults_that_are_spelled_out_make_no_other_task() {
        let tmpfs = |tmpfs_mode| Mount { kind: MountKind::Tmpfs, tmpfs_mode, ..Mount::default() };
        let mut old = TaskSpec::default();
        old.container.mounts = vec![tmpfs(0)];
        let mut new = old.clone();
        new.container.stop_grace_period = Some(Duration::from_secs(10));
        new.container.init = Some(false);
        new.container.health = Some(HealthCheck::default());
        new.container.mounts = vec![tmpfs(0o1777)];
        assert!(old != new && old.makes_same(&new) && new.makes_same(&old));
        for edit in [
            |it: &mut TaskSpec| it.container.stop_grace_period = Some(Duration::from_secs(9)),
            |it: &mut TaskSpec| it.container.init = Some(true),
            |it: &mut TaskSpec| it.container.mounts[0].tmpfs_mode = 0o700,
            // Without one it is the cluster's.
            |it: &mut TaskSpec| it.log_driver = "json-file".into(),
        ] {
            let mut other = new.clone();
            edit(&mut other);
            assert!(!old.makes_same(&other), "{other:?}");
        }
    }

    #[test]
    fn credentials_alone_make_no_other_task_and_are_not_shown() {
        let mut old = TaskSpec::default();
        old.container.image = "web".into();
        let mut new = old.clone();
        let password = "p4ssw0rd".to_owned();
        new.container.pull_credentials = Some(PullCredentials { password, ..Default::default() });
        assert!(old != new && old.makes_same(&new) && new.makes_same(&old));
        assert!(!format!("{new:?}").contains("p4ssw0rd"));
        new.container.image = "other".into();
        assert!(!old.makes_same(&new) && !new.makes_same(&old));
    }
}
