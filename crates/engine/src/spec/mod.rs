//! Renders what runs: the OCI runtime specification of a container, with Docker's defaults.
//!
//! Pure: what was looked up (users, mounts, what the daemon itself may do) comes in by [`Plan`].
//! Whoever wants to see the result by eye runs `docker inspect` for the question and
//! `ctr container info` for the answer.
//!
//! Invariant: a container never gets more than the daemon has: capabilities are cut to the
//! daemon's bounding set, limits to its hard limits, and its OOM score is never below the daemon's.

mod capabilities;
mod environment;
mod image;
mod machine;
mod merged;
mod mounts;
mod process;
mod resources;
mod seccomp;
#[cfg(test)]
mod tests;

pub(crate) use capabilities::check as check_capabilities;
pub(crate) use environment::{environment, merge};
pub(crate) use image::ImageConfig;
pub(crate) use machine::Machine;
pub use merged::Merged;
pub(crate) use merged::{labels, labels_within};
pub(crate) use mounts::SHM_SIZE;
pub(crate) use process::{ExecPlan, arguments, exec, working_dir};
pub(crate) use seccomp::check as check_seccomp;
pub use seccomp::check_profile;

use crate::config::ContainerConfig;
use crate::info::MountPoint;
use crate::joined::Borrowed;
use crate::memory::Place;
use crate::node_access::Found;
use crate::users::User;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use types::{AppArmor, Fault, Propagation, Seccomp};

/// The network namespace of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Netns {
    Path(PathBuf),
    /// A new one, empty.
    New,
    Host,
}

/// Everything a specification is rendered from.
pub(crate) struct Plan<'a> {
    pub(crate) id: &'a str,
    pub(crate) config: &'a ContainerConfig,
    pub(crate) image: &'a ImageConfig,
    pub(crate) machine: &'a Machine,
    pub(crate) user: &'a User,
    pub(crate) hostname: &'a str,
    pub(crate) netns: &'a Netns,
    pub(crate) mounts: &'a [MountPoint],
    /// Holds the container's `hosts`, `hostname` and `resolv.conf`.
    pub(crate) files: &'a Path,
    /// Secrets and configs.
    pub(crate) memory_files: &'a [Place],
    pub(crate) cgroup_parent: &'a str,
    /// What it has of other containers.
    pub(crate) borrowed: &'a Borrowed,
    /// The node's devices that it is to have.
    pub(crate) devices: &'a [Found],
}

impl Plan<'_> {
    /// The bounding set.
    fn capabilities(&self) -> Result<BTreeSet<&'static str>, Fault> {
        capabilities(self.config, self.machine)
    }
}

/// What a container's processes may do: all that the daemon may, where it is privileged.
fn capabilities(
    config: &ContainerConfig,
    machine: &Machine,
) -> Result<BTreeSet<&'static str>, Fault> {
    let spec = &config.spec;
    if config.node.privileged {
        return Ok(machine.capabilities.clone());
    }
    capabilities::plan(&spec.cap_add, &spec.cap_drop, &machine.capabilities)
}

/// The AppArmor profile of a container's processes, `None` where they have none.
pub(crate) fn apparmor(config: &ContainerConfig, machine: &Machine) -> Option<String> {
    let own = machine.apparmor.clone()?;
    match &config.spec.security.apparmor {
        AppArmor::Default if config.node.privileged => Some("unconfined".to_owned()),
        AppArmor::Default => Some(own),
        AppArmor::Unconfined => Some("unconfined".to_owned()),
        AppArmor::Named(name) => Some(name.clone()),
    }
}

/// Renders the specification. The runtime writes `root.path`.
pub(crate) fn render(plan: &Plan<'_>) -> Result<Value, Fault> {
    let spec = &plan.config.spec;
    let node = &plan.config.node;
    let mut rendered = json!({
        "ociVersion": "1.0.2",
        "process": process::main(plan)?,
        "root": { "path": "rootfs", "readonly": spec.read_only },
        "mounts": mounts::render(plan),
        "linux": {
            "cgroupsPath": cgroup(plan.cgroup_parent, plan.id),
            "resources": resources::render(plan),
            "namespaces": namespaces(plan),
        },
    });
    if !node.uts {
        rendered["hostname"] = json!(plan.hostname);
    }
    let linux = &mut rendered["linux"];
    if !node.privileged {
        linux["maskedPaths"] = paths(plan.config.masked_paths.as_ref(), &MASKED);
        linux["readonlyPaths"] = paths(plan.config.readonly_paths.as_ref(), &READONLY);
    }
    if !plan.devices.is_empty() {
        linux["devices"] = plan.devices.iter().map(resources::device).collect();
    }
    // As with Docker: a profile of one's own holds for a privileged container, too.
    let policy = match &spec.security.seccomp {
        Seccomp::Default if node.privileged => &Seccomp::Unconfined,
        own => own,
    };
    if let Some(profile) = seccomp::render(policy, plan.machine, &plan.capabilities()?)? {
        linux["seccomp"] = profile;
    }
    if let Some(propagation) = propagation(plan.mounts) {
        linux["rootfsPropagation"] = json!(propagation);
    }
    let sysctls = sysctls(plan)?;
    if !sysctls.is_empty() {
        rendered["linux"]["sysctl"] = json!(sysctls);
    }
    Ok(rendered)
}

fn paths(own: Option<&Vec<String>>, default: &[&str]) -> Value {
    own.map_or_else(|| json!(default), |own| json!(own))
}

/// How mounts pass between the container's root and the node: as far as one of its binds needs it.
fn propagation(mounts: &[MountPoint]) -> Option<&'static str> {
    let wants = |wanted: &[Propagation]| {
        mounts.iter().any(|point| wanted.contains(&point.mount.propagation))
    };
    if wants(&[Propagation::Shared, Propagation::Rshared]) {
        return Some("shared");
    }
    wants(&[Propagation::Slave, Propagation::Rslave]).then_some("rslave")
}

/// What of /proc and /sys is hidden, as Docker does.
pub const MASKED: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

/// What of /proc cannot be written, as Docker does.
pub const READONLY: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// An absolute path makes runc use the file system itself and not ask systemd.
fn cgroup(parent: &str, id: &str) -> String {
    format!("/{}/{id}", parent.trim_matches('/'))
}

fn namespaces(plan: &Plan<'_>) -> Value {
    let node = &plan.config.node;
    let mut kinds = vec![json!({ "type": "mount" })];
    let Borrowed { pid, ipc, .. } = plan.borrowed;
    for (kind, is_nodes, of_other) in
        [("uts", node.uts, &None), ("ipc", node.ipc, ipc), ("pid", node.pid, pid)]
    {
        match of_other {
            Some(path) => kinds.push(json!({ "type": kind, "path": path })),
            None if is_nodes => {}
            None => kinds.push(json!({ "type": kind })),
        }
    }
    match plan.netns {
        Netns::Path(path) => kinds.push(json!({ "type": "network", "path": path })),
        Netns::New => kinds.push(json!({ "type": "network" })),
        Netns::Host => {
            let node = plan.machine.network.iter();
            kinds.extend(node.map(|path| json!({ "type": "network", "path": path })));
        }
    }
    // As Docker: with cgroup v1, a namespace of its own would hide the limits from many programs.
    if plan.machine.cgroup2 && !node.cgroup {
        kinds.push(json!({ "type": "cgroup" }));
    }
    Value::Array(kinds)
}

/// The user's settings over Docker's own, which let an ordinary user ping and serve port 80.
fn sysctls(plan: &Plan<'_>) -> Result<types::Labels, Fault> {
    let mut settings = types::Labels::new();
    let node = &plan.config.node;
    let own_network = *plan.netns != Netns::Host && node.joined.network.is_empty();
    let own_ipc = !node.ipc && node.joined.ipc.is_empty();
    if own_network && plan.machine.network_sysctls {
        settings.insert("net.ipv4.ip_unprivileged_port_start".to_owned(), "0".to_owned());
        settings.insert("net.ipv4.ping_group_range".to_owned(), "0 2147483647".to_owned());
    }
    for (name, value) in &plan.config.spec.sysctls {
        let network = name.starts_with("net.");
        let known = network || (is_ipc_sysctl(name) && own_ipc);
        if !known || (network && !own_network) {
            return Err(Fault::invalid(format!("sysctl '{name}' is not allowed")));
        }
        settings.insert(name.clone(), value.clone());
    }
    Ok(settings)
}

/// Kernel settings that an IPC namespace has for itself.
fn is_ipc_sysctl(name: &str) -> bool {
    const KERNEL: [&str; 8] = [
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
    ];
    KERNEL.contains(&name) || name.starts_with("fs.mqueue.")
}
