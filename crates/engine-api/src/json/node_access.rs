//! What a plain container asks of its node: name spaces, devices, all rights.

use engine::{Device, DeviceRule, NodeAccess};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use types::Fault;

/// The part of `HostConfig` that is about it.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    pub(crate) privileged: bool,
    pub(crate) pid: String,
    pub(crate) ipc: String,
    pub(crate) uts: String,
    pub(crate) cgroup: String,
    pub(crate) devices: Vec<DeviceJson>,
    pub(crate) device_rules: Vec<String>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(rename = "DeviceMapping", rename_all = "PascalCase", default)]
pub(crate) struct DeviceJson {
    path_on_host: String,
    path_in_container: String,
    cgroup_permissions: String,
}

impl DeviceJson {
    fn parse(self) -> Result<Device, Fault> {
        let Self { path_on_host: source, path_in_container: target, cgroup_permissions: access } =
            self;
        let target = if target.is_empty() { source.clone() } else { target };
        let access = if access.is_empty() { "rwm".to_owned() } else { access };
        if !source.starts_with('/') || !target.starts_with('/') {
            return Err(Fault::invalid(format!(
                "invalid device path {source:?}: it is not absolute"
            )));
        }
        if !Device::is_access(&access) {
            return Err(Fault::invalid(format!("invalid device mode: {access}")));
        }
        Ok(Device { source, target, access })
    }

    fn render(device: &Device) -> Self {
        let Device { source, target, access } = device.clone();
        Self { path_on_host: source, path_in_container: target, cgroup_permissions: access }
    }
}

/// Says whether a name space is the node's.
fn is_nodes(field: &str, mode: &str, own: &[&str]) -> Result<bool, Fault> {
    match mode {
        "host" => Ok(true),
        own_one if own.contains(&own_one) => Ok(false),
        other => Err(Fault::not_implemented(&format!("HostConfig.{field}={other}"))),
    }
}

impl Asked {
    pub(crate) fn parse(self) -> Result<NodeAccess, Fault> {
        for rule in &self.device_rules {
            if DeviceRule::parse(rule).is_none() {
                return Err(Fault::invalid(format!("invalid device cgroup rule format: '{rule}'")));
            }
        }
        let devices = self.devices.into_iter().map(DeviceJson::parse);
        Ok(NodeAccess {
            privileged: self.privileged,
            pid: is_nodes("PidMode", &self.pid, &["", "private"])?,
            ipc: is_nodes("IpcMode", &self.ipc, &["", "private", "shareable"])?,
            uts: is_nodes("UTSMode", &self.uts, &[""])?,
            cgroup: is_nodes("CgroupnsMode", &self.cgroup, &["", "private"])?,
            devices: devices.collect::<Result<_, _>>()?,
            device_rules: self.device_rules,
        })
    }
}

/// Renders the part of `HostConfig` that is about it.
pub(crate) fn render(node: &NodeAccess) -> Map<String, Value> {
    let mode =
        |is_nodes: bool, own: &str| if is_nodes { "host".to_owned() } else { own.to_owned() };
    let devices: Vec<DeviceJson> = node.devices.iter().map(DeviceJson::render).collect();
    let rules = Some(&node.device_rules).filter(|rules| !rules.is_empty());
    let fields = json!({
        "Privileged": node.privileged,
        "PidMode": mode(node.pid, ""),
        "IpcMode": mode(node.ipc, "private"),
        "UTSMode": mode(node.uts, ""),
        "CgroupnsMode": mode(node.cgroup, "private"),
        "Devices": devices,
        "DeviceCgroupRules": rules,
    });
    if let Value::Object(fields) = fields { fields } else { Map::new() }
}
