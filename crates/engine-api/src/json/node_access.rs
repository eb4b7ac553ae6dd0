//! What a plain container asks of its node: name spaces, devices, all rights.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use types::{Device, DeviceRequest, DeviceRule, Fault, Joined, Labels, NodeAccess};

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
    pub(crate) device_requests: Vec<RequestJson>,
    pub(crate) cgroup_parent: String,
    /// The container whose network it has.
    pub(crate) network_of: String,
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
        Device::new(&source, &target, &access).map_err(Fault::invalid)
    }

    fn render(device: &Device) -> Self {
        let Device { source, target, access } = device.clone();
        Self { path_on_host: source, path_in_container: target, cgroup_permissions: access }
    }
}

/// Devices by what they can do, or by their vendors' names.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(rename = "DeviceRequest", rename_all = "PascalCase", default)]
pub(crate) struct RequestJson {
    driver: String,
    count: i64,
    #[serde(rename = "DeviceIDs")]
    ids: Vec<String>,
    capabilities: Vec<Vec<String>>,
    options: Labels,
}

impl RequestJson {
    fn parse(self) -> Result<DeviceRequest, Fault> {
        let Self { driver, count, ids, capabilities, options } = self;
        let request = DeviceRequest { driver, count, ids, capabilities, options };
        request.check().map_err(Fault::invalid)?;
        Ok(request)
    }

    fn render(request: &DeviceRequest) -> Self {
        let DeviceRequest { driver, count, ids, capabilities, options } = request.clone();
        Self { driver, count, ids, capabilities, options }
    }
}

/// Whose a name space is.
#[derive(Debug, Default, PartialEq, Eq)]
struct Whose {
    is_nodes: bool,
    /// The container that has it.
    others: String,
}

/// What comes before a container whose name space is meant.
pub(crate) const CONTAINER: &str = "container:";

/// `own`: the words for one of its own.
fn whose(kind: &str, mode: &str, own: &[&str], joins: bool) -> Result<Whose, Fault> {
    let whose = Whose::default();
    match (mode, mode.strip_prefix(CONTAINER).filter(|_| joins)) {
        ("host", _) => Ok(Whose { is_nodes: true, ..whose }),
        (own_one, _) if own.contains(&own_one) => Ok(whose),
        (_, Some(other)) if !other.is_empty() => Ok(Whose { others: other.to_owned(), ..whose }),
        _ => Err(Fault::invalid(format!("invalid {kind} mode: {mode}"))),
    }
}

impl Asked {
    pub(crate) fn parse(self) -> Result<NodeAccess, Fault> {
        for rule in &self.device_rules {
            if DeviceRule::parse(rule).is_none() {
                return Err(Fault::invalid(format!("invalid device cgroup rule format: '{rule}'")));
            }
        }
        if self.ipc == "none" {
            return Err(Fault::not_implemented("HostConfig.IpcMode=none (use private)"));
        }
        let devices = self.devices.into_iter().map(DeviceJson::parse);
        let requests = self.device_requests.into_iter().map(RequestJson::parse);
        let pid = whose("PID", &self.pid, &[""], true)?;
        let ipc = whose("IPC", &self.ipc, &["", "private", "shareable"], true)?;
        Ok(NodeAccess {
            privileged: self.privileged,
            pid: pid.is_nodes,
            ipc: ipc.is_nodes,
            uts: whose("UTS", &self.uts, &[""], false)?.is_nodes,
            cgroup: whose("cgroup namespace", &self.cgroup, &["", "private"], false)?.is_nodes,
            devices: devices.collect::<Result<_, _>>()?,
            device_rules: self.device_rules,
            device_requests: requests.collect::<Result<_, _>>()?,
            cgroup_parent: self.cgroup_parent,
            shareable: self.ipc == "shareable",
            joined: Joined { network: self.network_of, pid: pid.others, ipc: ipc.others },
        })
    }
}

/// Renders the part of `HostConfig` that is about it.
pub(crate) fn render(node: &NodeAccess) -> Map<String, Value> {
    let mode = |is_nodes: bool, other: &str, own: &str| match (is_nodes, other) {
        (true, _) => "host".to_owned(),
        (false, "") => own.to_owned(),
        (false, other) => format!("{CONTAINER}{other}"),
    };
    let devices: Vec<DeviceJson> = node.devices.iter().map(DeviceJson::render).collect();
    let requests: Vec<RequestJson> = node.device_requests.iter().map(RequestJson::render).collect();
    let rules = Some(&node.device_rules).filter(|rules| !rules.is_empty());
    let fields = json!({
        "Privileged": node.privileged,
        "PidMode": mode(node.pid, &node.joined.pid, ""),
        "IpcMode": mode(
            node.ipc,
            &node.joined.ipc,
            if node.shareable { "shareable" } else { "private" },
        ),
        "UTSMode": mode(node.uts, "", ""),
        "CgroupnsMode": mode(node.cgroup, "", "private"),
        "CgroupParent": node.cgroup_parent,
        "Devices": devices,
        "DeviceCgroupRules": rules,
        "DeviceRequests": Some(requests).filter(|requests| !requests.is_empty()),
    });
    if let Value::Object(fields) = fields { fields } else { Map::new() }
}
