//! What a device needs of a container's OCI specification.

use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct Edits {
    env: Vec<String>,
    device_nodes: Vec<DeviceNode>,
    hooks: Vec<Hook>,
    mounts: Vec<Mount>,
    #[serde(rename = "intelRdt")]
    rdt: Option<Value>,
    #[serde(rename = "additionalGids")]
    groups: Vec<u32>,
    net_devices: Vec<NetDevice>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct DeviceNode {
    path: String,
    host_path: String,
    #[serde(rename = "type")]
    kind: String,
    major: Option<u64>,
    minor: Option<u64>,
    file_mode: Option<u32>,
    permissions: String,
    uid: Option<u32>,
    gid: Option<u32>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct Hook {
    #[serde(rename = "hookName")]
    when: String,
    path: String,
    args: Vec<String>,
    env: Vec<String>,
    timeout: Option<i64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct Mount {
    host_path: String,
    container_path: String,
    options: Vec<String>,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct NetDevice {
    host_interface_name: String,
    name: String,
}

/// The points at which an OCI runtime runs programs.
const HOOKS: [&str; 6] =
    ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

impl Edits {
    pub(super) fn apply(&self, spec: &mut Value) -> Result<(), String> {
        for variable in &self.env {
            let name = variable.split('=').next().unwrap_or_default();
            put(list(spec, &["process", "env"]), json!(variable), |other| {
                other.as_str().and_then(|it| it.split('=').next()) == Some(name)
            });
        }
        for node in &self.device_nodes {
            node.apply(spec)?;
        }
        for mount in &self.mounts {
            let kind = if mount.kind.is_empty() { "bind" } else { &mount.kind };
            let mut options = mount.options.clone();
            if kind == "bind" && !options.iter().any(|it| it == "bind" || it == "rbind") {
                options.push("rbind".to_owned());
            }
            let rendered = json!({
                "destination": mount.container_path, "type": kind, "source": mount.host_path,
                "options": options,
            });
            put(list(spec, &["mounts"]), rendered, |other| {
                other["destination"] == mount.container_path
            });
        }
        for hook in &self.hooks {
            let Some(name) = HOOKS.into_iter().find(|name| *name == hook.when) else {
                return Err(format!("there is no hook {:?}", hook.when));
            };
            let mut rendered = json!({ "path": hook.path, "args": hook.args, "env": hook.env });
            if let Some(timeout) = hook.timeout {
                rendered["timeout"] = json!(timeout);
            }
            list(spec, &["hooks", name]).push(rendered);
        }
        if let Some(rdt) = &self.rdt {
            spec["linux"]["intelRdt"] = rdt.clone();
        }
        for group in &self.groups {
            put(list(spec, &["process", "user", "additionalGids"]), json!(group), |other| {
                *other == json!(group)
            });
        }
        for device in &self.net_devices {
            spec["linux"]["netDevices"][&device.host_interface_name] =
                json!({ "name": device.name });
        }
        Ok(())
    }
}

impl DeviceNode {
    fn apply(&self, spec: &mut Value) -> Result<(), String> {
        let source = if self.host_path.is_empty() { &self.path } else { &self.host_path };
        let found = self.found(source)?;
        // Whoever is not root could not open what belongs to root.
        let of_process = |name: &str| spec["process"]["user"][name].as_u64().filter(|id| *id > 0);
        let uid = self.uid.map(u64::from).or_else(|| of_process("uid"));
        let gid = self.gid.map(u64::from).or_else(|| of_process("gid"));
        let mut node = Map::new();
        node.insert("path".to_owned(), json!(self.path));
        node.insert("type".to_owned(), json!(found.kind.to_string()));
        let numbers = if found.kind == 'p' { None } else { Some((found.major, found.minor)) };
        if let Some((major, minor)) = numbers {
            node.insert("major".to_owned(), json!(major));
            node.insert("minor".to_owned(), json!(minor));
        }
        for (name, value) in
            [("fileMode", self.file_mode.map(u64::from)), ("uid", uid), ("gid", gid)]
        {
            if let Some(value) = value {
                node.insert(name.to_owned(), json!(value));
            }
        }
        put(list(spec, &["linux", "devices"]), Value::Object(node), |other| {
            other["path"] == self.path
        });
        if let Some((major, minor)) = numbers
            && self.permissions != "none"
        {
            let access = if self.permissions.is_empty() { "rwm" } else { &self.permissions };
            list(spec, &["linux", "resources", "devices"]).push(json!({
                "allow": true, "type": found.kind.to_string(), "major": major, "minor": minor,
                "access": access,
            }));
        }
        Ok(())
    }

    /// What the file says, and the node where it says nothing.
    fn found(&self, source: &str) -> Result<Numbers, String> {
        if let (Some(major), Some(minor), Some(kind)) =
            (self.major, self.minor, kind_of(&self.kind))
        {
            return Ok(Numbers { kind, major, minor });
        }
        let there = std::fs::metadata(Path::new(source))
            .map_err(|error| format!("failed to stat device {source:?}: {error}"))?;
        let kind = there.file_type();
        let found = match (kind.is_block_device(), kind.is_char_device(), kind.is_fifo()) {
            (true, _, _) => 'b',
            (_, true, _) => 'c',
            (_, _, true) => 'p',
            _ => return Err(format!("{source:?} is not a device")),
        };
        if kind_of(&self.kind).is_some_and(|kind| kind != found) {
            return Err(format!("{source:?} is of type {found}, not {}", self.kind));
        }
        let number = there.rdev();
        let (major, minor) = (nix::sys::stat::major(number), nix::sys::stat::minor(number));
        Ok(Numbers {
            kind: found,
            major: self.major.unwrap_or(major),
            minor: self.minor.unwrap_or(minor),
        })
    }
}

struct Numbers {
    kind: char,
    major: u64,
    minor: u64,
}

/// Of a character device (also without a buffer, `u`), a block device or a pipe.
fn kind_of(text: &str) -> Option<char> {
    match text {
        "b" => Some('b'),
        "c" | "u" => Some('c'),
        "p" => Some('p'),
        _ => None,
    }
}

/// A list in the specification, which is made where it is missing.
fn list<'a>(spec: &'a mut Value, path: &[&str]) -> &'a mut Vec<Value> {
    let place = path.iter().fold(spec, |place, name| &mut place[*name]);
    if !place.is_array() {
        *place = Value::Array(Vec::new());
    }
    match place {
        Value::Array(items) => items,
        _ => unreachable!("it was made one"),
    }
}

/// Puts an item in the place of those that are the same, or behind all.
fn put(items: &mut Vec<Value>, item: Value, is_same: impl Fn(&Value) -> bool) {
    items.retain(|other| !is_same(other));
    items.push(item);
}

/// The outermost first, as they are mounted one over the other.
pub(super) fn sort_mounts(spec: &mut Value) {
    let depth = |mount: &Value| {
        let target = mount["destination"].as_str().unwrap_or_default();
        Path::new(target).components().count()
    };
    list(spec, &["mounts"]).sort_by_key(depth);
}
