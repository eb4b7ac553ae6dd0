//! From a task to the container that carries it out. Pure.

use crate::files::Files;
use discovery::SandboxAttachment;
use engine::{Asked, ContainerConfig, HostPort, LogConfig, MemoryFile, NetworkMode};
use types::{
    AskedAccess, FileTarget, Labels, LogDriver, NodeDescription, NodeId, NodeNetwork, Protocol,
    PublishMode, TASK_LABEL, Task, template,
};

/// What the engine is asked to make. Says which template is wrong otherwise.
pub(crate) fn config(
    id: String,
    task: &Task,
    (node, description): (&NodeId, &NodeDescription),
) -> Result<ContainerConfig, String> {
    let mut spec = template::expand(task, node, description)?;
    let AskedAccess { node: access, shm_size } = AskedAccess::of(&spec.labels)?;
    // For pulling only: the engine writes down what it makes, and shows it.
    spec.pull_credentials = None;
    spec.labels.extend(labels(task, node));
    // As in Docker they count over what the user set.
    spec.env.extend(types::generic::environment(&task.generic));
    let LogDriver { name: driver, options } = task.log();
    let host_ports: Vec<HostPort> = host_ports(task)
        .into_iter()
        .map(|(protocol, published, target)| HostPort { protocol, published, target })
        .collect();
    let exposed = host_ports.iter().map(|it| format!("{}/{}", it.target, it.protocol.as_str()));
    let asked = Asked {
        exposed_ports: exposed.collect(),
        host_ports: host_ports.clone(),
        ..Asked::default()
    };
    Ok(ContainerConfig {
        id,
        name: task.name(),
        spec,
        resources: task.spec.resources,
        network: match task.spec.node_network() {
            None | Some(NodeNetwork::Bridge) => NetworkMode::Attached,
            Some(NodeNetwork::Host) => NetworkMode::Host,
            Some(NodeNetwork::None) => NetworkMode::None,
        },
        is_tasks: true,
        node: access,
        shm_size,
        // The data plane leads to them; here they are for people who look.
        host_ports,
        asked,
        log: LogConfig { driver, options },
        ..ContainerConfig::default()
    })
}

/// Docker's labels: tools find a service's containers by them.
fn labels(task: &Task, node: &NodeId) -> Labels {
    let pairs = [
        ("com.docker.swarm.node.id", node.to_string()),
        ("com.docker.swarm.service.id", task.service.to_string()),
        ("com.docker.swarm.service.name", task.service_name.clone()),
        ("com.docker.swarm.task", String::new()),
        (TASK_LABEL, task.id.to_string()),
        ("com.docker.swarm.task.name", task.name()),
    ];
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// What is mounted from memory into a task's container. Says what is missing or wrong otherwise.
pub(crate) fn memory_files(
    task: &Task,
    files: &Files,
    (node, description): (&NodeId, &NodeDescription),
) -> Result<Vec<MemoryFile>, String> {
    if let Some(missing) = files.missing(&task.spec.container) {
        return Err(missing);
    }
    let Files { secrets, configs } = files;
    let filled = template::expand_files(task, (node, description), (secrets, configs))?;
    let file = |it: template::FilledFile| {
        let FileTarget { uid, gid, mode, .. } = it.target;
        MemoryFile { target: it.path, uid, gid, mode, data: it.data }
    };
    Ok(filled.into_iter().map(file).collect())
}

/// Says whether the task's container has a network that the data plane gives it.
pub(crate) fn has_network(task: &Task) -> bool {
    matches!(task.spec.node_network(), None | Some(NodeNetwork::Bridge))
}

/// The task's addresses, as the data plane wants them.
pub(crate) fn attachments(task: &Task) -> Vec<SandboxAttachment> {
    let attachments = task.attachments.iter().map(|attachment| SandboxAttachment {
        network: attachment.network.clone(),
        addresses: attachment.addresses,
    });
    attachments.collect()
}

/// Ports that lead straight to this task: (protocol, published, target).
pub(crate) fn host_ports(task: &Task) -> Vec<(Protocol, u16, u16)> {
    let ports = task.ports.iter().filter(|port| match port.mode {
        PublishMode::Host => port.published != 0,
        PublishMode::Ingress => false,
    });
    ports.map(|port| (port.protocol, port.published, port.target)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use types::{PublishedPort, PullCredentials};

    #[test]
    fn a_container_has_the_tasks_name_dockers_labels_and_expanded_texts() {
        let mut task = Task { id: "t".into(), service_name: "web".into(), ..Task::default() };
        task.slot = 1;
        task.spec.container.env = vec!["NAME={{.Task.Name}}".into()];
        task.spec.container.hostname = "{{.Service.Name}}-{{.Task.Slot}}".into();
        task.spec.container.labels.insert("own".into(), "label".into());
        task.spec.container.pull_credentials = Some(PullCredentials::default());
        let here = (&"n".into(), &NodeDescription::default());
        let config = config("c".into(), &task, here).unwrap();
        assert_eq!((config.id.as_str(), config.name.as_str()), ("c", "web.1.t"));
        assert_eq!(config.spec.env, ["NAME=web.1.t"]);
        assert_eq!(config.spec.hostname, "web-1");
        assert_eq!(config.spec.pull_credentials, None);
        let label = |name: &str| config.spec.labels.get(name).map(String::as_str);
        assert_eq!(label("own"), Some("label"));
        assert_eq!(label(TASK_LABEL), Some("t"));
        assert_eq!(label("com.docker.swarm.node.id"), Some("n"));
        assert_eq!(config.host_ports, []);
    }

    #[test]
    fn what_a_task_asks_of_its_node_is_its_containers() {
        let mut task = Task { id: "t".into(), ..Task::default() };
        let labels = [("skep.privileged", "true"), ("skep.shm_size", "8m")];
        task.spec.container.labels =
            labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let of = |task: &Task| config("c".into(), task, (&"n".into(), &NodeDescription::default()));
        let made = of(&task).unwrap();
        assert!(made.node.privileged && made.shm_size == 8 << 20 && has_network(&task));
        for (network, mode) in [
            (NodeNetwork::Host, NetworkMode::Host),
            (NodeNetwork::None, NetworkMode::None),
            (NodeNetwork::Bridge, NetworkMode::Attached),
        ] {
            let target = network.id().into();
            task.spec.networks = vec![types::NetworkAttachment { target, aliases: Vec::new() }];
            let made = of(&task).unwrap();
            assert_eq!((made.network.clone(), made.task()), (mode, Some("t".into())));
            assert_eq!(has_network(&task), made.network == NetworkMode::Attached);
        }
        task.spec.container.labels.insert("skep.gpus".into(), "some".into());
        assert!(of(&task).unwrap_err().starts_with("label skep.gpus: "));
    }

    #[test]
    fn only_ports_in_host_mode_are_published_by_the_node_itself() {
        let port = |mode| PublishedPort { published: 8080, target: 80, mode, ..Default::default() };
        let ports = vec![port(PublishMode::Ingress), port(PublishMode::Host)];
        let task = Task { ports, ..Task::default() };
        assert_eq!(host_ports(&task), [(Protocol::Tcp, 8080, 80)]);
        let config = config("c".into(), &task, (&"n".into(), &NodeDescription::default())).unwrap();
        let shown = [HostPort { protocol: Protocol::Tcp, published: 8080, target: 80 }];
        assert_eq!(
            (&config.host_ports[..], &config.asked.host_ports[..]),
            (&shown[..], &shown[..])
        );
        assert!(config.asked.exposed_ports.contains("80/tcp"));
    }
}
