//! What a service asks for beyond what Docker's API has fields for: labels of its container, which
//! every client keeps. Each is named after the key of the Compose Specification for the same.

use super::{Device, DeviceRequest, DeviceRule, NodeAccess, is_cdi_name};
use crate::{Labels, parse_size};

/// What begins the names of all labels that are for Skep.
const FAMILY: &str = "skep.";

/// The labels, without [`FAMILY`].
pub const ACCESS_LABELS: [&str; 11] = [
    "cgroup",
    "cgroup_parent",
    "device_cgroup_rules",
    "devices",
    "gpus",
    "ipc",
    "pid",
    "privileged",
    "shm_size",
    "userns_mode",
    "uts",
];

/// What the labels of a container ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    pub node: NodeAccess,
    /// Bytes of /dev/shm; 0: nothing is said.
    pub shm_size: u64,
}

impl Asked {
    /// Says whether labels ask for anything.
    pub fn is_in(labels: &Labels) -> bool {
        labels.keys().any(|name| name.starts_with(FAMILY))
    }

    /// What the labels ask for, or which one is wrong.
    pub fn of(labels: &Labels) -> Result<Self, String> {
        let mut asked = Self::default();
        for (name, value) in labels {
            let Some(key) = name.strip_prefix(FAMILY) else { continue };
            asked.take(key, value.trim()).map_err(|why| format!("label {name}: {why}"))?;
        }
        Ok(asked)
    }

    fn take(&mut self, key: &str, value: &str) -> Result<(), String> {
        let node = &mut self.node;
        match key {
            "privileged" => node.privileged = boolean(value)?,
            "pid" => node.pid = is_nodes(value, &[])?,
            "uts" => node.uts = is_nodes(value, &[])?,
            "cgroup" => node.cgroup = is_nodes(value, &["private"])?,
            "ipc" => {
                node.ipc = is_nodes(value, &["private", "shareable"])?;
                node.shareable = value == "shareable";
            }
            // Containers have the node's users in any case.
            "userns_mode" => {
                is_nodes(value, &[])?;
            }
            "cgroup_parent" => {
                check_cgroup_parent(value)?;
                value.clone_into(&mut node.cgroup_parent);
            }
            "shm_size" => {
                let size = parse_size(value).and_then(|size| u64::try_from(size).ok());
                let wrong = || format!("{value:?} is no amount of bytes such as 64m");
                self.shm_size = size.filter(|size| *size > 0).ok_or_else(wrong)?;
            }
            "devices" => devices(value, node)?,
            "gpus" => node.device_requests.push(gpus(value)?),
            "device_cgroup_rules" => {
                for rule in items(value) {
                    if DeviceRule::parse(rule).is_none() {
                        return Err(format!("invalid device cgroup rule format: '{rule}'"));
                    }
                    node.device_rules.push(rule.to_owned());
                }
            }
            _ => {
                let known = ACCESS_LABELS.map(|name| format!("{FAMILY}{name}"));
                return Err(format!("it is not known: a container has {}", known.join(", ")));
            }
        }
        Ok(())
    }
}

/// A cgroup stays below the root of all.
pub fn check_cgroup_parent(path: &str) -> Result<(), String> {
    if path.contains('\0') || path.split('/').any(|part| part == "..") {
        return Err(format!("invalid cgroup parent: {path:?}"));
    }
    Ok(())
}

fn items(value: &str) -> impl Iterator<Item = &str> {
    value.split(',').map(str::trim).filter(|item| !item.is_empty())
}

fn boolean(value: &str) -> Result<bool, String> {
    value.parse().map_err(|_neither| format!("{value:?} is neither true nor false"))
}

/// Says whether a name space is the node's.
fn is_nodes(value: &str, own: &[&str]) -> Result<bool, String> {
    match value {
        "host" => Ok(true),
        own_one if own.contains(&own_one) => Ok(false),
        container if container.starts_with("container:") || container.starts_with("service:") => {
            let why = "a task has no name spaces of other containers, which may be elsewhere";
            Err(format!("{value:?}: {why}"))
        }
        _ => {
            let words: Vec<&str> = ["host"].iter().chain(own).copied().collect();
            Err(format!("{value:?} is none of {}", words.join(", ")))
        }
    }
}

fn devices(value: &str, node: &mut NodeAccess) -> Result<(), String> {
    let mut named = Vec::new();
    for item in items(value) {
        if is_cdi_name(item) {
            named.push(item.to_owned());
        } else {
            node.devices.push(Device::parse(item)?);
        }
    }
    if !named.is_empty() {
        node.device_requests.push(DeviceRequest::cdi(named));
    }
    Ok(())
}

/// Reads `all`, a number, or `device=ID[,ID…]`, as `--gpus` does.
fn gpus(value: &str) -> Result<DeviceRequest, String> {
    if value == "all" {
        return Ok(DeviceRequest::gpus(-1, Vec::new()));
    }
    if let Some(ids) = value.strip_prefix("device=") {
        return Ok(DeviceRequest::gpus(0, items(ids).map(str::to_owned).collect()));
    }
    match value.parse() {
        Ok(count) if 0 < count => Ok(DeviceRequest::gpus(count, Vec::new())),
        Ok(_) | Err(_) => Err(format!("{value:?} is none of all, a number, device=ID,ID")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(labels: &[(&str, &str)]) -> Result<Asked, String> {
        let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Asked::of(&labels.collect())
    }

    #[test]
    fn labels_ask_for_what_is_the_nodes() {
        let asked = of(&[
            ("skep.privileged", "true"),
            ("skep.pid", "host"),
            ("skep.ipc", "host"),
            ("skep.uts", "host"),
            ("skep.cgroup", "host"),
            ("skep.userns_mode", "host"),
            ("skep.cgroup_parent", "/mine"),
            ("skep.shm_size", "128m"),
            ("skep.devices", "/dev/null:/dev/other:r, /dev/fuse, v.io/c=x, /dev/kvm:rw"),
            ("skep.device_cgroup_rules", "c 1:3 rw,b *:* r"),
            ("skep.gpus", "all"),
            ("other", "label"),
        ]);
        let Asked { node, shm_size } = asked.unwrap();
        assert!(node.privileged && node.pid && node.ipc && node.uts && node.cgroup);
        assert_eq!((node.cgroup_parent.as_str(), shm_size), ("/mine", 128 << 20));
        let device = |source, target, access| Device::new(source, target, access).unwrap();
        let wanted = [
            device("/dev/null", "/dev/other", "r"),
            device("/dev/fuse", "/dev/fuse", "rwm"),
            device("/dev/kvm", "/dev/kvm", "rw"),
        ];
        assert_eq!(node.devices, wanted);
        assert_eq!(node.device_rules, ["c 1:3 rw", "b *:* r"]);
        let requests =
            [DeviceRequest::cdi(vec!["v.io/c=x".into()]), DeviceRequest::gpus(-1, Vec::new())];
        assert_eq!(node.device_requests, requests);
        assert_eq!(of(&[("com.example", "x")]), Ok(Asked::default()));
        assert!(of(&[("skep.ipc", "shareable")]).unwrap().node.shareable);
        let some = of(&[("skep.gpus", "device=0,GPU-1")]).unwrap().node.device_requests;
        assert_eq!(some, [DeviceRequest::gpus(0, vec!["0".into(), "GPU-1".into()])]);
    }

    #[test]
    fn what_cannot_be_asked_for_is_refused_by_the_name_of_its_label() {
        for (name, value, why) in [
            ("skep.privileged", "yes", "neither true nor false"),
            ("skep.pid", "private", "is none of host"),
            ("skep.pid", "container:x", "which may be elsewhere"),
            ("skep.ipc", "other", "is none of host, private, shareable"),
            ("skep.ipc", "service:db", "which may be elsewhere"),
            ("skep.uts", "", "is none of host"),
            ("skep.cgroup_parent", "a/../..", "invalid cgroup parent: \"a/../..\""),
            ("skep.cgroup", "shared", "is none of host, private"),
            ("skep.userns_mode", "keep-id", "is none of host"),
            ("skep.shm_size", "-1", "no amount of bytes"),
            ("skep.shm_size", "0", "no amount of bytes"),
            ("skep.shm_size", "much", "no amount of bytes"),
            ("skep.devices", "null", "invalid device path \"null\": it is not absolute"),
            ("skep.devices", "/dev/null:x", "invalid device path \"x\": it is not absolute"),
            ("skep.devices", "/dev/null:/dev/null:x", "invalid device mode: x"),
            ("skep.devices", "/a:/b:r:w", "invalid device specification: /a:/b:r:w"),
            ("skep.devices", "v/c=", "not absolute"),
            ("skep.gpus", "0", "none of all, a number"),
            ("skep.gpus", "-1", "none of all, a number"),
            ("skep.gpus", "some", "none of all, a number"),
            ("skep.device_cgroup_rules", "c 1:3", "invalid device cgroup rule format: 'c 1:3'"),
            ("skep.priviledged", "true", "it is not known"),
            ("skep.schedule", "@daily", "it is not known"),
        ] {
            let refused = of(&[(name, value)]).unwrap_err();
            assert!(refused.starts_with(&format!("label {name}: ")), "{refused}");
            assert!(refused.contains(why), "{name}={value}: {refused}");
        }
    }
}
