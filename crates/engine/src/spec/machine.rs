//! What the daemon itself may do, which is the most it can give.

use super::{capabilities, seccomp};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// What the daemon found on its machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "as many things as a kernel may lack")]
pub(crate) struct Machine {
    pub(crate) capabilities: BTreeSet<&'static str>,
    /// Hard limits by Docker's names, e.g. `nofile`; one that is missing is unlimited.
    pub(crate) limits: BTreeMap<&'static str, u64>,
    pub(crate) oom_score_adj: i64,
    /// Only cgroup v2 is mounted.
    pub(crate) cgroup2: bool,
    /// The kernel knows the settings that Docker makes in every network namespace.
    pub(crate) network_sysctls: bool,
    /// Of the kernel: major and minor.
    pub(crate) kernel: (u32, u32),
    /// The kernel can filter system calls.
    pub(crate) seccomp: bool,
    /// The AppArmor profile of containers; `None` where the kernel has no AppArmor.
    pub(crate) apparmor: Option<String>,
    /// Swap can be limited.
    pub(crate) swap: bool,
    /// How gladly the kernel swaps can be set for a container; with cgroup v2 it cannot.
    pub(crate) swappiness: bool,
    /// The node's network, where the runtime may be in another one.
    pub(crate) network: Option<PathBuf>,
    /// A small init, for those who ask for one.
    pub(crate) init: Option<PathBuf>,
}

/// How /proc/self/limits calls them, and Docker.
pub(super) const LIMITS: [(&str, &str); 16] = [
    ("Max cpu time", "cpu"),
    ("Max file size", "fsize"),
    ("Max data size", "data"),
    ("Max stack size", "stack"),
    ("Max core file size", "core"),
    ("Max resident set", "rss"),
    ("Max processes", "nproc"),
    ("Max open files", "nofile"),
    ("Max locked memory", "memlock"),
    ("Max address space", "as"),
    ("Max file locks", "locks"),
    ("Max pending signals", "sigpending"),
    ("Max msgqueue size", "msgqueue"),
    ("Max nice priority", "nice"),
    ("Max realtime priority", "rtprio"),
    ("Max realtime timeout", "rttime"),
];

impl Machine {
    /// Looks at this process and its machine. What cannot be read is taken for unlimited.
    pub(crate) fn observe(apparmor: Option<String>) -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let there = |path: &str| Path::new(path).exists();
        let cgroup2 = there("/sys/fs/cgroup/cgroup.controllers");
        let memory = "/sys/fs/cgroup/memory";
        Self {
            capabilities: bounding(&read("/proc/self/status")),
            limits: limits(&read("/proc/self/limits")),
            oom_score_adj: read("/proc/self/oom_score_adj").trim().parse().unwrap_or(0),
            cgroup2,
            network_sysctls: there("/proc/sys/net/ipv4/ip_unprivileged_port_start"),
            kernel: seccomp::version(&read("/proc/sys/kernel/osrelease")).unwrap_or_default(),
            seccomp: there("/proc/sys/kernel/seccomp/actions_avail"),
            apparmor,
            swap: if cgroup2 {
                limits_swap(&read("/proc/self/cgroup"))
            } else {
                there(&format!("{memory}/memory.memsw.limit_in_bytes"))
            },
            swappiness: !cgroup2 && there(&format!("{memory}/memory.swappiness")),
            network: None,
            init: None,
        }
    }

    /// Says whether a mount and all below it can be made read-only at once: mount_setattr(2).
    pub(crate) fn read_only_below(&self) -> bool {
        (5, 12) <= self.kernel
    }
}

/// The root cgroup has no limits, so the daemon's own is asked; in the root, the kernel.
fn limits_swap(cgroup: &str) -> bool {
    let own = cgroup.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/");
    match own.trim_end_matches('/') {
        "" => Path::new("/proc/swaps").exists(),
        own => Path::new(&format!("/sys/fs/cgroup{own}/memory.swap.max")).exists(),
    }
}

fn bounding(status: &str) -> BTreeSet<&'static str> {
    let mask = status.lines().find_map(|line| line.strip_prefix("CapBnd:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    capabilities::of_mask(mask.unwrap_or(u64::MAX))
}

/// Reads hard limits: `Max open files   1024   20000   files`.
fn limits(text: &str) -> BTreeMap<&'static str, u64> {
    let mut hard = BTreeMap::new();
    for line in text.lines() {
        for (title, name) in LIMITS {
            let value = line.strip_prefix(title).and_then(|rest| rest.split_whitespace().nth(1));
            if let Some(Ok(value)) = value.map(str::parse) {
                hard.insert(name, value);
            }
        }
    }
    hard
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_and_capabilities_of_the_daemon_are_read() {
        let text = "Limit  Soft Limit  Hard Limit  Units\n\
            Max stack size            8388608              unlimited            bytes\n\
            Max open files            1024                 20000                files\n";
        assert_eq!(limits(text), BTreeMap::from([("nofile", 20000)]));
        let set = bounding("Name:\tskep\nCapBnd:\t000001fffeffffff\n");
        assert!(set.contains("CAP_SYS_ADMIN") && !set.contains("CAP_SYS_RESOURCE"));
    }
}
