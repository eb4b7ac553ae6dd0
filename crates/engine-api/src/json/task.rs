//! Tasks on the way out.

use super::network::with_prefix;
use super::service::PortJson;
use super::task_template::TaskTemplateJson;
use super::with_meta;
use serde_json::{Value, json};
use types::{Network, NetworkId, Task, TaskState};

/// The ports that the task's node has for it alone, while it runs.
fn ports(task: &Task) -> Value {
    let runs = task.status.state == TaskState::Running;
    let own = task.ports.iter().filter(|port| runs && !port.in_mesh() && port.published != 0);
    let rendered: Vec<PortJson> = own.map(PortJson::render).collect();
    if rendered.is_empty() { json!({}) } else { json!({ "Ports": rendered }) }
}

/// Renders a task as `GET /tasks/{id}` shows it. `network` finds the networks it is attached to.
pub(crate) fn render(task: &Task, network: impl Fn(&NetworkId) -> Option<Network>) -> Value {
    let mut status = json!({
        "Timestamp": task.status.since.rfc3339(),
        "State": task.status.state.as_str(),
        "Message": task.status.message,
        "PortStatus": ports(task),
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
        "DesiredState": task.desired_word(),
        "NetworksAttachments": attachments,
        "GenericResources": super::generic::render(&task.generic),
    });
    // The name by which Docker documents it; the one above is what its servers say and its CLI reads.
    if !task.generic.is_empty() {
        object["AssignedGenericResources"] = object["GenericResources"].clone();
    }
    if task.number() > 0 {
        object["Slot"] = task.number().into();
    }
    if let Some(iteration) = task.iteration {
        object["JobIteration"] = json!({ "Index": iteration });
    }
    with_meta(object, &task.meta)
}

#[cfg(test)]
mod tests {
    use super::*;
    use types::{PublishMode, PublishedPort};

    #[test]
    fn a_task_of_a_job_says_which_run_it_is_of_and_counts_from_0() {
        let job = |slot| {
            let task = Task { slot, iteration: Some(3), ..Task::default() };
            let shown = render(&task, |_| None);
            [&shown["Slot"], &shown["JobIteration"]["Index"], &shown["DesiredState"]]
                .map(Clone::clone)
        };
        assert_eq!(job(1), [json!(null), json!(3), json!("complete")]);
        assert_eq!(job(2), [json!(1), json!(3), json!("complete")]);
        let shown = render(&Task { slot: 2, ..Task::default() }, |_| None);
        assert_eq!((&shown["Slot"], &shown["DesiredState"]), (&json!(2), &json!("running")));
        assert_eq!(shown["JobIteration"], json!(null));
    }

    #[test]
    fn a_running_task_shows_the_ports_of_its_node() {
        let port = |mode| PublishedPort { published: 8080, target: 80, mode, ..Default::default() };
        let ports = vec![port(PublishMode::Ingress), port(PublishMode::Host)];
        let mut task = Task { ports, ..Task::default() };
        let shown = |task: &Task| render(task, |_| None)["Status"]["PortStatus"].clone();
        assert_eq!(shown(&task), json!({}));
        task.status.state = TaskState::Running;
        let host = json!({ "Protocol": "tcp", "TargetPort": 80, "PublishedPort": 8080,
            "PublishMode": "host" });
        assert_eq!(shown(&task), json!({ "Ports": [host] }));
    }
}
