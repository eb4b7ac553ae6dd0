//! What a service asks of its nodes: devices, name spaces, rights. Docker's API has no fields for it in
//! services, so it goes into labels of the container, which the cluster reads.

use crate::fields::{Fields, items};
use crate::remark::Log;
use crate::scalar::{boolean, integer, labels, scalar, strings, text};
use crate::tree::{Node, Value};
use crate::{Around, paths};
use types::{AppArmor, AskedAccess, Labels, Resources, Seccomp, Security, is_cdi_name};

/// Keys whose value is the label's.
const WORDS: [&str; 7] =
    ["cgroup", "cgroup_parent", "ipc", "pid", "shm_size", "userns_mode", "uts"];
const PRIVILEGED: &str = "skep.privileged";
const DEVICES: &str = "skep.devices";
const DEVICE_RULES: &str = "skep.device_cgroup_rules";
const GPUS: &str = "skep.gpus";

/// Reads what a service asks for into labels of its container.
pub(crate) fn access(fields: &mut Fields<'_>, to: &mut Labels, log: &mut Log) {
    for key in WORDS {
        if let Some(node) = fields.take(key) {
            put(&format!("skep.{key}"), text(node, log), node, to, log);
        }
    }
    if let Some(node) = fields.take("privileged")
        && boolean(node, log)
    {
        put(PRIVILEGED, "true".to_owned(), node, to, log);
    }
    if let Some(node) = fields.take("devices") {
        let devices: Vec<String> = items(node, log).iter().map(|item| device(item, log)).collect();
        append(DEVICES, &devices, node, to, log);
    }
    if let Some(node) = fields.take("device_cgroup_rules") {
        append(DEVICE_RULES, &strings(node, log), node, to, log);
    }
    if let Some(node) = fields.take("gpus") {
        match &node.value {
            Value::List(list) => {
                for item in list {
                    request(item, true, to, log);
                }
            }
            Value::Null
            | Value::Bool(_)
            | Value::Int(_)
            | Value::Float(_)
            | Value::Text(_)
            | Value::Map(_) => put(GPUS, text(node, log), node, to, log),
        }
    }
}

/// Adds what was asked for elsewhere in the file.
pub(crate) fn merge(from: Labels, node: &Node, to: &mut Labels, log: &mut Log) {
    for (name, value) in from {
        if name == DEVICES {
            append(&name, &[value], node, to, log);
        } else {
            put(&name, value, node, to, log);
        }
    }
}

/// Notes what is asked for, or says what is wrong with it, or that it was asked for otherwise.
fn put(name: &str, value: String, node: &Node, to: &mut Labels, log: &mut Log) {
    match to.get(name) {
        Some(before) if !value.is_empty() && *before != value => {
            let what = if name == GPUS { "GPUs are".to_owned() } else { format!("{name} is") };
            log.error(node, format!("{what} asked for twice: {before} and {value}"));
        }
        Some(_) | None => set(name, value, node, to, log),
    }
}

fn set(name: &str, value: String, node: &Node, to: &mut Labels, log: &mut Log) {
    if value.is_empty() {
        return;
    }
    let one = Labels::from([(name.to_owned(), value.clone())]);
    match AskedAccess::of(&one) {
        Ok(_) => drop(to.insert(name.to_owned(), value)),
        Err(why) => {
            let why = why.strip_prefix(&format!("label {name}: ")).unwrap_or(&why).to_owned();
            log.error(node, why);
        }
    }
}

/// A device, as a text or in its parts.
fn device(item: &Node, log: &mut Log) -> String {
    let Value::Map(_) = &item.value else { return text(item, log) };
    let mut fields = Fields::of(item, log);
    let mut parts = Vec::new();
    for key in ["source", "target", "permissions"] {
        parts.extend(fields.take(key).map(|node| text(node, log)));
    }
    fields.finish(log);
    parts.join(":")
}

/// Reads `deploy.resources.reservations.devices`.
pub(crate) fn reserved(node: &Node, to: &mut Labels, log: &mut Log) {
    for item in items(node, log) {
        request(item, false, to, log);
    }
}

/// A request for devices by what they can do, or by their names.
fn request(node: &Node, is_gpu: bool, to: &mut Labels, log: &mut Log) {
    let mut fields = Fields::of(node, log);
    let capabilities = fields.take("capabilities").map(|node| strings(node, log));
    let driver = fields.take("driver").map(|node| text(node, log)).unwrap_or_default();
    let ids = fields.take("device_ids").map(|node| strings(node, log)).unwrap_or_default();
    let count = fields.take("count").map(|node| match scalar(node).as_deref() {
        Some("all") => -1,
        _ => integer::<i64>(node, log),
    });
    if let Some(options) = fields.take("options")
        && !labels(options, log).is_empty()
    {
        log.error(options, "options of drivers are not supported by skep");
    }
    fields.finish(log);
    if count.is_some() && !ids.is_empty() {
        return log.error(node, "count and device_ids exclude each other");
    }
    let capabilities = capabilities.unwrap_or_default();
    match driver.as_str() {
        "cdi" if ids.is_empty() => log.error(node, "the driver cdi needs device_ids"),
        "cdi" => match ids.iter().find(|id| !is_cdi_name(id)) {
            Some(id) => log.error(node, format!("{id:?} is no name of CDI: VENDOR/CLASS=NAME")),
            None => append(DEVICES, &ids, node, to, log),
        },
        "" | "nvidia" if is_gpu || capabilities.iter().any(|it| it == "gpu") => {
            if to.contains_key(GPUS) {
                return log.error(node, "GPUs are asked for twice");
            }
            let value = match (count, ids.is_empty()) {
                (_, false) => format!("device={}", ids.join(",")),
                (None | Some(-1), true) => "all".to_owned(),
                (Some(count), true) => count.to_string(),
            };
            put(GPUS, value, node, to, log);
        }
        "" | "nvidia" => {
            let wanted = capabilities.join(", ");
            log.error(
                node,
                format!("there are devices of the capability gpu alone, not [{wanted}]"),
            );
        }
        other => log.error(node, format!("the driver {other:?} is not supported by skep: use cdi")),
    }
}

fn append(name: &str, more: &[String], node: &Node, to: &mut Labels, log: &mut Log) {
    let before = to.get(name).cloned().unwrap_or_default();
    let mut all: Vec<&str> = before.split(',').filter(|item| !item.is_empty()).collect();
    for item in more.iter().flat_map(|items| items.split(',')) {
        if !all.contains(&item) {
            all.push(item);
        }
    }
    set(name, all.join(","), node, to, log);
}

/// Reads `memswap_limit`, which counts memory and swap together, and `mem_swappiness`.
pub(crate) fn swap(fields: &mut Fields<'_>, resources: &mut Resources, log: &mut Log) {
    if let Some(node) = fields.take("memswap_limit") {
        let is_unlimited = scalar(node).as_deref() == Some("-1");
        let both = if is_unlimited { -1 } else { crate::scalar::size(node, log) };
        match both {
            -1 => resources.swap = Some(-1),
            0 => {}
            both if resources.limit_memory == 0 || both < resources.limit_memory => {
                let limit = "deploy.resources.limits.memory";
                log.error(node, format!("it counts memory and swap, so it is at least {limit}"));
            }
            both => resources.swap = Some(both - resources.limit_memory),
        }
    }
    if let Some(node) = fields.take("mem_swappiness") {
        match integer::<i64>(node, log) {
            percent @ 0..=100 => resources.swappiness = Some(percent),
            _ => log.error(node, "should be from 0 to 100"),
        }
    }
}

/// Reads `security_opt`.
pub(crate) fn security(node: &Node, around: &Around<'_>, log: &mut Log) -> Security {
    let mut security = Security::default();
    for option in strings(node, log) {
        let sign = if option.contains('=') { '=' } else { ':' };
        match option.split_once(sign).unwrap_or((&option, "true")) {
            ("no-new-privileges", "true") => security.no_new_privileges = true,
            ("no-new-privileges", "false") => security.no_new_privileges = false,
            ("label", "disable") => security.selinux_disabled = true,
            ("label", _) => log.error(node, "containers get no SELinux labels with skep"),
            ("apparmor", "" | "docker-default") => security.apparmor = AppArmor::Default,
            ("apparmor", "unconfined") => security.apparmor = AppArmor::Unconfined,
            ("apparmor", _) => {
                log.error(node, "a service has its node's AppArmor profile, or is unconfined");
            }
            ("seccomp", "" | "builtin") => security.seccomp = Seccomp::Default,
            ("seccomp", "unconfined") => security.seccomp = Seccomp::Unconfined,
            ("seccomp", file) => {
                let path = paths::absolute(around.folder, file);
                match (around.read)(&path) {
                    Ok(bytes) => {
                        let text = String::from_utf8_lossy(&bytes).into_owned();
                        security.seccomp = Seccomp::Custom(text);
                    }
                    Err(error) => {
                        log.error(node, format!("cannot read {}: {error}", path.display()));
                    }
                }
            }
            (name, _) => log.error(node, format!("{name:?} is no security option")),
        }
    }
    security
}
