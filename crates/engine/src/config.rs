//! What the engine must be told: where things are, and what a container should be.

use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::path::PathBuf;
use types::{ContainerSpec, Labels, NodeAccess, Protocol, Resources, TASK_LABEL, TaskId};

/// Where things are on this machine.
#[derive(Clone, Debug)]
pub struct Config {
    /// Records, logs and volumes, e.g. `/var/lib/skep/engine`.
    pub data: PathBuf,
    /// FIFOs, e.g. `/run/skep/containers`. Empty after a reboot.
    pub run: PathBuf,
    /// The cgroup that containers are put below, e.g. `/skep`.
    pub cgroup_parent: String,
    /// The daemon's own list of name servers; its search domains are given to containers.
    pub resolv_conf: PathBuf,
    /// A static program that starts the command after its `--`, hands signals on to it, reaps
    /// processes that lost their parent, and ends as the command does.
    pub init: Option<&'static [u8]>,
    /// The network namespace that is the node's; `None`: the one that the runtime is in.
    pub network: Option<PathBuf>,
    /// Folders with files of the Container Device Interface; later ones go first.
    pub cdi: Vec<PathBuf>,
    /// The program that mounts volumes, called with [`crate::MOUNT_HELPER`]; without one, threads of
    /// this process do it.
    pub mount_helper: Option<PathBuf>,
    /// The folders that Docker's volume plugins are found in.
    pub plugin_folders: Vec<PathBuf>,
    /// The AppArmor profile of containers, which is loaded; `None` where the kernel has none.
    pub apparmor: Option<String>,
    /// The log driver of containers that name none, and its options.
    pub log: LogConfig,
    /// The socket of the machine's journal, e.g. `/run/systemd/journal/socket`.
    pub journal: PathBuf,
}

/// A container to make.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerConfig {
    /// 64 hex digits; empty: drawn. Whoever attaches the network before making the container
    /// draws it with [`crate::Engine::draw_id`].
    pub id: String,
    /// Empty: drawn.
    pub name: String,
    pub spec: ContainerSpec,
    pub resources: Resources,
    pub network: NetworkMode,
    pub host_ports: Vec<HostPort>,
    pub log: LogConfig,
    /// Removed with its anonymous volumes when it ends.
    pub auto_remove: bool,
    /// Standard input ends when the first client that was attached to it goes.
    pub stdin_once: bool,
    /// Bytes of /dev/shm; 0: 64 MiB.
    pub shm_size: u64,
    /// What of /proc and /sys is hidden; `None`: as Docker does.
    pub masked_paths: Option<Vec<String>>,
    /// What of /proc and /sys cannot be written; `None`: as Docker does.
    pub readonly_paths: Option<Vec<String>>,
    /// What it has of the node's own.
    #[serde(skip_serializing_if = "NodeAccess::is_none")]
    pub node: NodeAccess,
    /// Its caller makes and removes it as the container of a task, on whichever network it is.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub is_tasks: bool,
    /// How it was asked for, where that says more than what is done.
    pub asked: Asked,
}

impl ContainerConfig {
    /// The task that it is the container of. The label alone says nothing, since whoever copies a
    /// container copies its labels: users make no such containers. (One of a former release does not
    /// say so; only tasks' containers are attached by another than the engine.)
    pub fn task(&self) -> Option<TaskId> {
        let is_tasks = self.is_tasks || self.network == NetworkMode::Attached;
        let task = self.spec.labels.get(TASK_LABEL).filter(|_| is_tasks)?;
        Some(TaskId::from(task.as_str()))
    }
}

/// What was asked for, as it is shown again. Nothing is done by it: what is to be done stands in
/// the rest of [`ContainerConfig`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Asked {
    pub attach_stdin: bool,
    pub attach_stdout: bool,
    pub attach_stderr: bool,
    /// `80/tcp`
    pub exposed_ports: BTreeSet<String>,
    /// `SOURCE:TARGET[:OPTIONS]`; [`ContainerSpec::mounts`] has them, too, as the next two.
    pub binds: Vec<String>,
    /// Options by target.
    pub tmpfs: Labels,
    /// Targets of volumes without a name.
    pub volumes: BTreeSet<String>,
    /// `NAME:ADDRESS`
    pub extra_hosts: Vec<String>,
    /// [`ContainerConfig::host_ports`] before free ones were found.
    pub host_ports: Vec<HostPort>,
}

/// How a container is connected.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NetworkMode {
    /// The gateway bridge only; the engine attaches and detaches it.
    #[default]
    Bridge,
    /// The caller attaches it to the data plane under the container's id before it starts, and
    /// detaches it after it has ended.
    Attached,
    /// The node's own network.
    Host,
    /// A namespace with nothing in it.
    None,
}

/// A port published on the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostPort {
    pub protocol: Protocol,
    /// 0: one that is free.
    pub published: u16,
    pub target: u16,
}

/// Where a container's output goes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LogConfig {
    /// One of [`crate::LOG_DRIVERS`]; empty: `json-file`.
    pub driver: String,
    /// Docker's; see [`LogConfig::check`].
    pub options: Labels,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_copies_the_labels_of_a_tasks_container_makes_no_container_of_a_task() {
        let labels: Labels = [(TASK_LABEL.to_owned(), "t1".to_owned())].into();
        let config = |network| {
            let spec = ContainerSpec { labels: labels.clone(), ..ContainerSpec::default() };
            ContainerConfig { spec, network, ..ContainerConfig::default() }
        };
        assert_eq!(config(NetworkMode::Attached).task(), Some("t1".into()));
        for network in [NetworkMode::Bridge, NetworkMode::Host, NetworkMode::None] {
            assert_eq!(config(network).task(), None);
        }
        assert_eq!(ContainerConfig::default().task(), None);
        let host = ContainerConfig { is_tasks: true, ..config(NetworkMode::Host) };
        assert_eq!(host.task(), Some("t1".into()));
    }
}
