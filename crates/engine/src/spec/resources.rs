//! What a container may use.

use super::machine::LIMITS;
use super::{Machine, Plan};
use crate::node_access::Found;
use serde_json::{Map, Value, json};
use types::{DeviceRule, Fault, Resources, Ulimit};

/// Microseconds in which a quota of processor time is given.
const CPU_PERIOD: i64 = 100_000;

/// Renders `linux.resources`.
pub(super) fn render(plan: &Plan<'_>) -> Value {
    let (resources, machine) = (&plan.config.resources, plan.machine);
    let mut rendered = Map::new();
    rendered.insert("devices".to_owned(), devices(plan));
    let mut memory = Map::new();
    if 0 < resources.limit_memory {
        memory.insert("limit".to_owned(), json!(resources.limit_memory));
        if machine.swap {
            memory.insert("swap".to_owned(), json!(memory_and_swap(resources)));
        }
    }
    if let Some(swappiness) = resources.swappiness.filter(|_| machine.swappiness) {
        memory.insert("swappiness".to_owned(), json!(swappiness));
    }
    if 0 < resources.reserve_memory {
        memory.insert("reservation".to_owned(), json!(resources.reserve_memory));
    }
    if !memory.is_empty() {
        rendered.insert("memory".to_owned(), Value::Object(memory));
    }
    if 0 < resources.limit_nano_cpus {
        let quota = resources.limit_nano_cpus.saturating_mul(CPU_PERIOD / 1000) / 1_000_000;
        // The kernel takes no quota below a millisecond.
        let cpu = json!({ "quota": quota.max(1000), "period": CPU_PERIOD });
        rendered.insert("cpu".to_owned(), cpu);
    }
    if 0 < resources.limit_pids {
        rendered.insert("pids".to_owned(), json!({ "limit": resources.limit_pids }));
    }
    Value::Object(rendered)
}

/// Who may use which device.
fn devices(plan: &Plan<'_>) -> Value {
    let node = &plan.config.node;
    if node.privileged {
        return json!([{ "allow": true, "access": "rwm" }]);
    }
    // runc adds what every container needs: null, zero, full, random, urandom, tty, console, pts.
    let mut rules = vec![json!({ "allow": false, "access": "rwm" })];
    rules.extend(plan.devices.iter().map(|Found { kind, numbers, access, .. }| {
        json!({ "allow": true, "type": kind, "major": numbers.0, "minor": numbers.1, "access": access })
    }));
    for rule in node.device_rules.iter().filter_map(|rule| DeviceRule::parse(rule)) {
        let mut rendered = json!({ "allow": true, "type": rule.kind, "access": rule.access });
        for (name, number) in [("major", rule.major), ("minor", rule.minor)] {
            if let Some(number) = number {
                rendered[name] = json!(number);
            }
        }
        rules.push(rendered);
    }
    Value::Array(rules)
}

/// Renders the node of a device.
pub(super) fn device(device: &Found) -> Value {
    let Found { path, kind, numbers, mode, owner, .. } = device;
    json!({
        "path": path, "type": kind, "major": numbers.0, "minor": numbers.1,
        "fileMode": mode, "uid": owner.0, "gid": owner.1,
    })
}

/// The limit of memory and swap together, as the OCI counts for both cgroup versions; -1: none.
/// Unless the user says otherwise, there may be as much swap as memory.
fn memory_and_swap(resources: &Resources) -> i64 {
    match resources.swap {
        Some(unlimited) if unlimited < 0 => -1,
        Some(swap) => resources.limit_memory.saturating_add(swap),
        None => resources.limit_memory.saturating_mul(2),
    }
}

/// Files that a process may open at a time unless the user says otherwise. As with Docker since 29:
/// there are programs that take every number that they may have for a file, one after the other.
const NOFILE: &str = "nofile";
const NOFILE_SOFT: i64 = 1024;
const NOFILE_HARD: i64 = 524_288;

/// Renders `process.rlimits`, none above the daemon's own. The others are inherited.
pub(super) fn rlimits(plan: &Plan<'_>) -> Result<Value, Fault> {
    let mut ulimits = plan.config.spec.ulimits.clone();
    if !ulimits.iter().any(|ulimit| ulimit.name.eq_ignore_ascii_case(NOFILE)) {
        let name = NOFILE.to_owned();
        ulimits.push(Ulimit { name, soft: NOFILE_SOFT, hard: NOFILE_HARD });
    }
    let mut rendered = Vec::new();
    for ulimit in ulimits {
        let name = ulimit.name.to_lowercase();
        if !LIMITS.iter().any(|(_, known)| *known == name) {
            return Err(Fault::invalid(format!("invalid ulimit type: {}", ulimit.name)));
        }
        let hard = cut(plan.machine, &name, ulimit.hard);
        let soft = cut(plan.machine, &name, ulimit.soft).min(hard);
        let kind = format!("RLIMIT_{}", name.to_uppercase());
        rendered.push(json!({ "type": kind, "hard": hard, "soft": soft }));
    }
    Ok(Value::Array(rendered))
}

/// -1 is no limit.
fn cut(machine: &Machine, name: &str, wanted: i64) -> u64 {
    let most = machine.limits.get(name).copied().unwrap_or(u64::MAX);
    u64::try_from(wanted).unwrap_or(u64::MAX).min(most)
}
