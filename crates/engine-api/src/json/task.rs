//! Tasks on the way out.

use super::network::with_prefix;
use super::task_template::TaskTemplateJson;
use super::with_meta;
use serde_json::{Value, json};
use types::{Network, NetworkId, Task};

/// Renders a task as `GET /tasks/{id}` shows it. `network` finds the networks it is attached to.
pub(crate) fn render(task: &Task, network: impl Fn(&NetworkId) -> Option<Network>) -> Value {
    let mut status = json!({
        "Timestamp": task.status.since.rfc3339(),
        "State": task.status.state.as_str(),
        "Message": task.status.message,
        "PortStatus": {},
    });
    if !task.status.error.is_empty() {
        status["Err"] = task.status.error.clone().into();
    }
    if let Some(container) = &task.status.container {
        status["ContainerStatus"] = json!({
            "ContainerID": container.id,
            "PID": container.pid,
            "ExitCode": container.exit_code,
        });
    }
    let attachments: Vec<Value> = task
        .attachments
        .iter()
        .map(|attachment| {
            let network = network(&attachment.network);
            let addresses = attachment.addresses.iter();
            let addresses: Vec<String> =
                addresses.map(|address| with_prefix(address, network.as_ref())).collect();
            let network = network.map_or_else(
                || json!({ "ID": attachment.network }),
                |network| super::network::render_nested(&network),
            );
            json!({ "Network": network, "Addresses": addresses })
        })
        .collect();
    let mut object = json!({
        "ID": task.id,
        "Labels": {},
        "Spec": TaskTemplateJson::render(&task.spec),
        "ServiceID": task.service,
        "NodeID": task.node.as_ref().map_or("", |node| node.as_str()),
        "Status": status,
        "DesiredState": task.desired.as_str(),
        "NetworksAttachments": attachments,
        "GenericResources": null,
    });
    if task.slot > 0 {
        object["Slot"] = task.slot.into();
    }
    with_meta(object, &task.meta)
}
