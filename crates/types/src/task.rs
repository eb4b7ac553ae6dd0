//! Tasks: units of work on a node.

use crate::{
    Addresses, DesiredState, GenericResources, Labels, LogDriver, Meta, NetworkId, NodeId,
    PublishedPort, ServiceId, SharedSpec, TaskId, TaskState, Timestamp,
};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The label by which a task's container is known on its node; its value is the task's id.
pub const TASK_LABEL: &str = "com.docker.swarm.task.id";

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Task {
    pub id: TaskId,
    pub meta: Meta,
    pub service: ServiceId,
    /// The service's name and labels when the task was made.
    pub service_name: String,
    pub service_labels: Labels,
    /// Counts from 1 in a replicated service or job; 0 in a global one.
    pub slot: u64,
    /// Of a job: the iteration that made it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iteration: Option<u64>,
    /// Written by the scheduler.
    pub node: Option<NodeId>,
    /// What it was made from.
    pub spec: SharedSpec,
    pub desired: DesiredState,
    pub status: TaskStatus,
    /// When it began to run, if it ever did; written with the state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub running_since: Option<Timestamp>,
    /// Do not start before (restart delay). Written by the orchestrator.
    pub not_before: Option<Timestamp>,
    /// How long its process has to run before the task counts as running, where no health check
    /// says when it is ready: another task serves in its slot meanwhile. Written by the
    /// orchestrator.
    #[serde(skip_serializing_if = "Duration::is_zero")]
    pub trial: Duration,
    /// The task beside it from which it takes over, where its service is spread anew. Written by the
    /// orchestrator.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replaces: Option<TaskId>,
    /// When tasks of this slot were restarted before; kept as far as the restart policy's
    /// `max_attempts` counts. Written by the orchestrator.
    pub restarts: Vec<Timestamp>,
    /// Addresses on the service's networks; written by the allocator. Those of the routing mesh
    /// are in `ingress_addresses`.
    pub attachments: Vec<Attachment>,
    /// Set when the service publishes ports in ingress mode.
    #[serde(alias = "ingress_address")]
    pub ingress_addresses: Addresses,
    /// Ports of the service when the task was allocated.
    pub ports: Vec<PublishedPort>,
    /// The cluster's default when the task was made, where its spec says nothing of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_log: Option<LogDriver>,
    /// What it was given of its node's generic resources. Written by the scheduler.
    #[serde(skip_serializing_if = "GenericResources::is_empty")]
    pub generic: GenericResources,
    /// What it refers to of secrets and configs has changed since it was given its files. Written by
    /// whoever makes a new revision of one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refresh: Option<Refresh>,
}

/// Files of a container that take the place of others while it runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Refresh {
    /// Counts, for one task.
    pub number: u64,
    /// What its process is sent afterwards; empty: nothing.
    pub signal: String,
}

impl Task {
    /// The files that are to take the place of others, as far as a node has said that they did in
    /// `status`.
    pub fn due_refresh(&self, status: &TaskStatus) -> Option<&Refresh> {
        let refresh = self.refresh.as_ref()?;
        let is_due = status.state == TaskState::Running && status.refreshed < refresh.number;
        is_due.then_some(refresh)
    }

    /// The name of the task and of its container: `service.slot.id`, or `service.node.id` for a
    /// task of a global service.
    pub fn name(&self) -> String {
        match (self.number(), &self.node) {
            (0, Some(node)) => format!("{}.{node}.{}", self.service_name, self.id),
            (number, _) => format!("{}.{number}.{}", self.service_name, self.id),
        }
    }

    /// The number of its slot as Docker's users know it: those of jobs count from 0.
    pub fn number(&self) -> u64 {
        self.slot.saturating_sub(u64::from(self.iteration.is_some()))
    }

    /// What is wanted of it, in the Engine API's word: a task of a job is to complete.
    pub fn desired_word(&self) -> &'static str {
        match self.desired {
            DesiredState::Running if self.iteration.is_some() => TaskState::Complete.as_str(),
            desired => desired.as_str(),
        }
    }

    /// Where its output goes.
    pub fn log(&self) -> LogDriver {
        self.spec.own_log().or_else(|| self.default_log.clone()).unwrap_or_default()
    }

    /// The same, to be written where its spec stands beside: with the spec's id alone.
    #[must_use]
    pub fn with_spec_by_id(&self) -> Self {
        Self { spec: self.spec.by_id(), ..self.clone() }
    }

    /// Says whether names and balancers may lead to this task: it runs, and is not to be stopped.
    pub fn serves(&self) -> bool {
        self.status.state == TaskState::Running && !self.is_stopping()
    }

    /// Says whether this task is about to be stopped: the cluster wants it, or it is unhealthy.
    pub fn is_stopping(&self) -> bool {
        self.desired > DesiredState::Running || self.status.unhealthy
    }

    /// Says whether it is to run, now or later. One that ended is wanted until it is replaced, or
    /// for good where its restart policy does not replace it.
    pub fn is_wanted(&self) -> bool {
        self.desired <= DesiredState::Running
    }

    /// Says whether this task still takes room on its node: it is there and has not ended.
    pub fn occupies(&self) -> bool {
        !self.status.state.is_terminal()
    }

    /// Says whether it was given addresses.
    pub fn has_addresses(&self) -> bool {
        !self.attachments.is_empty() || !self.ingress_addresses.is_empty()
    }

    /// Says whether this task was given to its node and has not ended. (One of a global service
    /// names its node before.)
    pub fn is_placed(&self) -> bool {
        TaskState::Assigned <= self.status.state && self.occupies()
    }
}

/// What was observed of a task.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TaskStatus {
    pub state: TaskState,
    /// When the state was entered.
    pub since: Timestamp,
    /// What is going on, e.g. `started`, `preparing`.
    pub message: String,
    /// Why it failed, or why it waits; empty otherwise.
    pub error: String,
    pub container: Option<ContainerStatus>,
    /// Its health check has failed: it is about to be stopped, and nobody may lead traffic to it,
    /// although it runs. It stays so until it has ended.
    pub unhealthy: bool,
    /// Up to which [`Refresh`] its files have been replaced.
    #[serde(skip_serializing_if = "is_none_yet")]
    pub refreshed: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's way")]
fn is_none_yet(number: &u64) -> bool {
    *number == 0
}

/// Bytes of a text that are kept of what a node reports.
pub(crate) const TEXT_MAX: usize = 1024;
/// Bytes of a container's id that are kept; it has 64.
const CONTAINER_ID_MAX: usize = 128;

impl TaskStatus {
    /// The same with texts of limited length: it is kept in the cluster's log.
    #[must_use]
    pub fn limited(mut self) -> Self {
        cut(&mut self.message, TEXT_MAX);
        cut(&mut self.error, TEXT_MAX);
        if let Some(container) = &mut self.container {
            cut(&mut container.id, CONTAINER_ID_MAX);
        }
        self
    }
}

/// Cuts a text between characters; `…` stands for the rest.
pub(crate) fn cut(text: &mut String, max: usize) {
    const MORE: &str = "…";
    if text.len() > max {
        text.truncate(text.floor_char_boundary(max - MORE.len()));
        text.push_str(MORE);
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerStatus {
    pub id: String,
    pub pid: u32,
    pub exit_code: i32,
}

/// A task's addresses on a network; the lengths of their prefixes are its subnets'.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Attachment {
    pub network: NetworkId,
    #[serde(alias = "address")]
    pub addresses: Addresses,
    pub aliases: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_a_status_are_cut_between_characters() {
        let long = "ä".repeat(10_000);
        let container = Some(ContainerStatus { id: long.clone(), ..ContainerStatus::default() });
        let status = TaskStatus {
            error: long,
            message: "started".into(),
            container,
            ..TaskStatus::default()
        };
        let status = status.limited();
        assert!(status.error.len() <= TEXT_MAX && status.error.ends_with("ä…"));
        assert_eq!(status.message, "started");
        assert!(status.container.unwrap().id.len() <= CONTAINER_ID_MAX);
    }
}
