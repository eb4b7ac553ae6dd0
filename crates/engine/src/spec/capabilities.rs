//! What a container's processes may do of what root may.

use std::collections::BTreeSet;
use types::Fault;

/// Docker's default.
const DEFAULT: [&str; 14] = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

/// By number, capabilities(7).
const ALL: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// Reads a mask as /proc/PID/status shows it.
pub(crate) fn of_mask(mask: u64) -> BTreeSet<&'static str> {
    let set = (0_u32..).zip(ALL).filter(|(bit, _)| mask >> bit & 1 == 1);
    set.map(|(_, name)| name).collect()
}

/// What is left of Docker's default after `drop` and `add`, within what the daemon has.
pub(crate) fn plan(
    add: &[String],
    drop: &[String],
    daemon: &BTreeSet<&'static str>,
) -> Result<BTreeSet<&'static str>, Fault> {
    let (add, drop) = (named(add)?, named(drop)?);
    let mut set: BTreeSet<&'static str> = match (add.all, drop.all) {
        (true, _) => ALL.into_iter().collect(),
        (false, true) => BTreeSet::new(),
        (false, false) => DEFAULT.into_iter().collect(),
    };
    set.retain(|name| !drop.names.contains(name));
    // Beside ALL, what is dropped stays dropped.
    if !add.all {
        set.extend(add.names);
    }
    Ok(set.intersection(daemon).copied().collect())
}

/// Refuses names that are no capabilities.
pub(crate) fn check(names: &[String]) -> Result<(), Fault> {
    named(names).map(|_| ())
}

struct Named {
    all: bool,
    names: BTreeSet<&'static str>,
}

fn named(wanted: &[String]) -> Result<Named, Fault> {
    let mut found = Named { all: false, names: BTreeSet::new() };
    for text in wanted {
        let name = text.to_uppercase();
        let name = name.strip_prefix("CAP_").unwrap_or(&name);
        if name == "ALL" {
            found.all = true;
            continue;
        }
        let known = ALL.into_iter().find(|known| known.strip_prefix("CAP_") == Some(name));
        let unknown =
            || Fault::invalid(format!("invalid capability: unknown capability: {text:?}"));
        found.names.insert(known.ok_or_else(unknown)?);
    }
    Ok(found)
}
