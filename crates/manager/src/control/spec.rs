//! What is wrong with a spec, in swarmkit's words.

use super::{file, job};
use planner::REPLICAS_MAX;
use std::collections::BTreeSet;
use store::View;
use types::{
    AskedAccess, ContainerSpec, EndpointMode, EndpointSpec, Fault, MountKind, NetworkAttachment,
    NodeNetwork, Placement, PublishMode, Resources, ServiceMode, ServiceSpec, UpdateConfig,
    check_name,
};

/// Docker's smallest memory limit.
const MEMORY_MIN: i64 = 4 * 1024 * 1024;
/// Docker's smallest share of a CPU: 0.001.
const NANO_CPUS_MIN: i64 = 1_000_000;

/// Says what is wrong with a service's spec taken by itself.
pub(super) fn check_service(spec: &ServiceSpec) -> Result<(), Fault> {
    check_name(&spec.name)?;
    // What templates yield is checked; the nodes fill them anew.
    let filled = types::template::check(spec).map_err(Fault::invalid)?;
    check_container(&filled)?;
    file::check_references(&filled)?;
    file::check_follows(spec)?;
    check_access(spec, &filled)?;
    check_resources(&spec.task.resources)?;
    for constraint in &spec.task.placement.constraints {
        Placement::check(constraint).map_err(|error| Fault::invalid(error.to_string()))?;
    }
    check_mode(spec)?;
    job::check(spec)?;
    check_endpoint(&spec.endpoint)?;
    check_update(&spec.update, "TaskSpec: update")?;
    check_update(&spec.rollback, "TaskSpec: rollback")
}

/// What a service asks of its nodes, and which of their networks it is on.
fn check_access(spec: &ServiceSpec, container: &ContainerSpec) -> Result<(), Fault> {
    let asked = AskedAccess::of(&container.labels).map_err(Fault::invalid)?;
    if asked.node.uts && !container.hostname.is_empty() {
        return Err(Fault::invalid("conflicting options: hostname and the UTS mode"));
    }
    let Some(own) = spec.task.node_network() else { return Ok(()) };
    if spec.task.networks.len() > 1 {
        return Err(Fault::invalid(format!(
            "conflicting options: a service on the network {} of its nodes is on no other one",
            own.name()
        )));
    }
    if own != NodeNetwork::Bridge && !spec.endpoint.ports.is_empty() {
        let why = match own {
            NodeNetwork::Host => "what it listens on is its node's in any case",
            NodeNetwork::Bridge | NodeNetwork::None => "nobody reaches it",
        };
        return Err(Fault::invalid(format!(
            "conflicting options: port publishing and the network {}: {why}",
            own.name()
        )));
    }
    Ok(())
}

/// Says whether every network of a spec is there and may be used by services.
pub(super) fn check_networks(view: &View, wanted: &[NetworkAttachment]) -> Result<(), Fault> {
    let mut seen = BTreeSet::new();
    for attachment in wanted {
        let target = &attachment.target;
        if NodeNetwork::of(target).is_some() {
            continue;
        }
        let Some(network) = view.network(target).filter(|network| !network.removed) else {
            return Err(Fault::not_found(format!("network {target} not found")));
        };
        let name = &network.spec.name;
        if network.spec.ingress {
            return Err(Fault::invalid(format!(
                "Service cannot be explicitly attached to the ingress network \"{name}\""
            )));
        }
        if !seen.insert(target) {
            return Err(Fault::invalid(format!(
                "Service is attached to network \"{name}\" more than once"
            )));
        }
    }
    Ok(())
}

fn check_container(container: &ContainerSpec) -> Result<(), Fault> {
    if container.image.is_empty() {
        return Err(Fault::invalid("ContainerSpec: image reference must be provided"));
    }
    if !is_reference(&container.image) {
        let image = &container.image;
        return Err(Fault::invalid(format!(
            "ContainerSpec: \"{image}\" is not a valid repository/tag"
        )));
    }
    let mut targets = BTreeSet::new();
    for mount in &container.mounts {
        let target = &mount.target;
        if !target.starts_with('/') {
            return Err(Fault::invalid(format!(
                "invalid mount target, must be an absolute path: {target}"
            )));
        }
        if !targets.insert(target) {
            return Err(Fault::invalid(format!("ContainerSpec: duplicate mount point: {target}")));
        }
        mount.check_source()?;
        if mount.kind == MountKind::Bind && !mount.source.starts_with('/') {
            let source = &mount.source;
            return Err(Fault::invalid(format!(
                "invalid bind mount source, must be an absolute path: {source}"
            )));
        }
    }
    for variable in &container.env {
        if variable.is_empty() || variable.starts_with('=') || variable.contains('\0') {
            return Err(Fault::invalid(format!("invalid environment variable: {variable}")));
        }
    }
    Ok(())
}

/// Says whether a text can be the name of an image: `[host[:port]/]path[:tag][@digest]`. The
/// engine reads it in full; this keeps out what can never be one.
fn is_reference(image: &str) -> bool {
    let name = image.split('@').next().unwrap_or_default();
    let (path, tag) = match name.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') => (path, Some(tag)),
        Some(_) | None => (name, None),
    };
    let in_tag = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    let tag_fits = tag.is_none_or(|tag| {
        !tag.is_empty()
            && tag.len() <= 128
            && tag.chars().all(in_tag)
            && !tag.starts_with(['.', '-'])
    });
    // Only the registry's host may have capitals.
    let in_path =
        |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '.' | '-');
    let in_registry =
        |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':' | '[' | ']');
    let parts: Vec<&str> = path.split('/').collect();
    let last = parts.len() - 1;
    let fits = |(at, part): (usize, &&str)| {
        let is_host = at == 0 && last > 0;
        let chars = part.chars();
        !part.is_empty()
            && if is_host {
                part.chars().all(in_registry) || part.chars().all(in_path)
            } else {
                chars.into_iter().all(in_path) && !part.starts_with(['.', '-', '_'])
            }
    };
    tag_fits && parts.iter().enumerate().all(fits)
}

fn check_resources(resources: &Resources) -> Result<(), Fault> {
    for cpus in [resources.limit_nano_cpus, resources.reserve_nano_cpus] {
        if cpus < 0 || (0 < cpus && cpus < NANO_CPUS_MIN) {
            let share = std::time::Duration::from_nanos(cpus.unsigned_abs()).as_secs_f64();
            let share = if cpus < 0 { -share } else { share };
            return Err(Fault::invalid(format!(
                "invalid cpu value {share}: Must be at least 0.001"
            )));
        }
    }
    for memory in [resources.limit_memory, resources.reserve_memory] {
        if memory < 0 || (0 < memory && memory < MEMORY_MIN) {
            return Err(Fault::invalid(format!(
                "invalid memory value {memory}: Must be at least 4MiB"
            )));
        }
    }
    match resources.swap {
        Some(_) if resources.limit_memory == 0 => {
            Err(Fault::invalid("memory swap provided, but no memory-limit was set"))
        }
        Some(swap) if swap < -1 => Err(Fault::invalid(format!(
            "invalid swap value {swap}: Must be -1 (no limit), 0 or more bytes"
        ))),
        Some(_) | None => Ok(()),
    }
}

fn check_mode(spec: &ServiceSpec) -> Result<(), Fault> {
    match spec.mode {
        ServiceMode::Global | ServiceMode::GlobalJob
            if spec.task.placement.max_replicas_per_node > 0 =>
        {
            Err(Fault::invalid("replicas-max-per-node can only be used with replicated mode"))
        }
        ServiceMode::Replicated { replicas } if replicas > REPLICAS_MAX => Err(Fault::invalid(
            format!("a service can have at most {REPLICAS_MAX} replicas, not {replicas}"),
        )),
        ServiceMode::ReplicatedJob { total_completions: tasks, .. } if tasks > REPLICAS_MAX => {
            Err(Fault::invalid(format!(
                "a job can have at most {REPLICAS_MAX} completions, not {tasks}"
            )))
        }
        ServiceMode::Replicated { .. }
        | ServiceMode::Global
        | ServiceMode::ReplicatedJob { .. }
        | ServiceMode::GlobalJob => Ok(()),
    }
}

fn check_endpoint(endpoint: &EndpointSpec) -> Result<(), Fault> {
    let mut ports = BTreeSet::new();
    for port in &endpoint.ports {
        if port.target == 0 {
            return Err(Fault::invalid("EndpointSpec: a published port needs a target port"));
        }
        let through_mesh = match port.mode {
            PublishMode::Ingress => true,
            PublishMode::Host => false,
        };
        match endpoint.mode {
            EndpointMode::Dnsrr if through_mesh => {
                return Err(Fault::invalid(
                    "EndpointSpec: port published with ingress mode can't be used with dnsrr mode",
                ));
            }
            EndpointMode::Dnsrr | EndpointMode::Vip => {}
        }
        if port.published != 0 && !ports.insert((port.protocol, port.published, port.mode)) {
            return Err(Fault::invalid("EndpointSpec: duplicate published ports provided"));
        }
    }
    Ok(())
}

fn check_update(update: &UpdateConfig, what: &str) -> Result<(), Fault> {
    if (0.0..=1.0).contains(&update.max_failure_ratio) {
        return Ok(());
    }
    Err(Fault::invalid(format!("{what}-maxfailureratio cannot be less than 0 or bigger than 1")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use types::{Mount, PublishedPort};

    fn spec() -> ServiceSpec {
        let mut spec = ServiceSpec { name: "web".into(), ..ServiceSpec::default() };
        spec.task.container.image = "registry.example:5000/team/web:1.0".into();
        spec
    }

    fn check(edit: impl FnOnce(&mut ServiceSpec), expected: &str) {
        let mut spec = spec();
        edit(&mut spec);
        assert_eq!(check_service(&spec), Err(Fault::invalid(expected)));
    }

    #[test]
    fn a_wrong_spec_is_refused_in_dockers_words() {
        check(|it| it.name.clear(), "meta: name must be provided");
        check(|it| it.name = "-web".into(), "name must be valid as a DNS name component");
        check(|it| it.name = "w b".into(), "name must be valid as a DNS name component");
        check(|it| it.name = "a.b.c".into(), "name must be valid as a DNS name component");
        check(|it| it.name = "web-".into(), "name must be valid as a DNS name component");
        check(|it| it.name = "a".repeat(64), "name must be 63 characters or fewer");
        let image = |it: &mut ServiceSpec, text: &str| it.task.container.image = text.into();
        check(|it| image(it, ""), "ContainerSpec: image reference must be provided");
        check(
            |it| image(it, "Web App"),
            "ContainerSpec: \"Web App\" is not a valid repository/tag",
        );
        check(
            |it| it.task.placement.constraints.push("node.role=worker".into()),
            "constraint expected one operator from ==, !=: node.role=worker",
        );
        check(
            |it| it.task.resources.limit_memory = 5,
            "invalid memory value 5: Must be at least 4MiB",
        );
        check(
            |it| it.task.resources.limit_nano_cpus = 100_000,
            "invalid cpu value 0.0001: Must be at least 0.001",
        );
        let swap = |it: &mut ServiceSpec, memory, swap| {
            (it.task.resources.limit_memory, it.task.resources.swap) = (memory, Some(swap));
        };
        check(|it| swap(it, 0, 0), "memory swap provided, but no memory-limit was set");
        check(
            |it| swap(it, 8 << 20, -2),
            "invalid swap value -2: Must be -1 (no limit), 0 or more bytes",
        );
        check(
            |it| it.update.max_failure_ratio = 2.0,
            "TaskSpec: update-maxfailureratio cannot be less than 0 or bigger than 1",
        );
        check(
            |it| it.mode = ServiceMode::Replicated { replicas: 20_001 },
            "a service can have at most 20000 replicas, not 20001",
        );
        let mount = Mount { target: "/data".into(), ..Mount::default() };
        check(
            |it| it.task.container.mounts = vec![mount.clone(), mount],
            "ContainerSpec: duplicate mount point: /data",
        );
    }

    #[test]
    fn what_a_service_asks_of_its_nodes_is_checked_before_there_is_a_task() {
        let label = |name: &str, value: &str| [(name.to_owned(), value.to_owned())].into();
        let on = |networks: &[NodeNetwork]| -> Vec<NetworkAttachment> {
            let wish = |network: &NodeNetwork| NetworkAttachment {
                target: network.id().into(),
                aliases: Vec::new(),
            };
            networks.iter().map(wish).collect()
        };
        let port = |mode| vec![PublishedPort { target: 80, mode, ..PublishedPort::default() }];
        check(
            |spec| spec.task.container.labels = label("skep.pid", "mine"),
            "label skep.pid: \"mine\" is none of host",
        );
        check(
            |spec| {
                spec.task.container.labels = label("skep.uts", "host");
                spec.task.container.hostname = "h".into();
            },
            "conflicting options: hostname and the UTS mode",
        );
        check(
            |spec| spec.task.networks = on(&[NodeNetwork::Host, NodeNetwork::None]),
            "conflicting options: a service on the network host of its nodes is on no other one",
        );
        for mode in [PublishMode::Ingress, PublishMode::Host] {
            check(
                |spec| {
                    spec.task.networks = on(&[NodeNetwork::Host]);
                    spec.endpoint.ports = port(mode);
                },
                "conflicting options: port publishing and the network host: what it listens on is \
                 its node's in any case",
            );
            check(
                |spec| {
                    spec.task.networks = on(&[NodeNetwork::None]);
                    spec.endpoint.ports = port(mode);
                },
                "conflicting options: port publishing and the network none: nobody reaches it",
            );
        }
        let mut fine = spec();
        fine.task.networks = on(&[NodeNetwork::Bridge]);
        fine.endpoint.ports = port(PublishMode::Ingress);
        fine.task.container.labels = label("skep.devices", "/dev/fuse");
        assert_eq!(check_service(&fine), Ok(()));
        assert_eq!(check_networks(&View::default(), &fine.task.networks), Ok(()));
    }

    #[test]
    fn a_template_is_wrong_when_the_service_is_made_not_on_every_node() {
        let mut wrong = spec();
        wrong.task.container.env = vec!["X={{.Nope}}".into()];
        let fault = check_service(&wrong).unwrap_err();
        assert!(fault.kind == types::FaultKind::Invalid && fault.message.contains("Nope"));
        // What templates yield is checked, too.
        check(
            |it| {
                it.task.container.mounts =
                    vec![Mount { target: "{{.Task.Slot}}".into(), ..Mount::default() }];
            },
            "invalid mount target, must be an absolute path: 1",
        );
    }

    #[test]
    fn ports_must_fit_together() {
        let port = PublishedPort { target: 80, published: 8080, ..PublishedPort::default() };
        let two = vec![port.clone(), port.clone()];
        check(|it| it.endpoint.ports = two, "EndpointSpec: duplicate published ports provided");
        check(
            |it| {
                it.endpoint = EndpointSpec { mode: EndpointMode::Dnsrr, ports: vec![port.clone()] };
            },
            "EndpointSpec: port published with ingress mode can't be used with dnsrr mode",
        );
    }

    #[test]
    fn names_of_images_are_told_from_other_texts() {
        for image in ["nginx", "nginx:1.2", "a/b_c/d", "localhost:5000/x:y", "REG.io/x@sha256:00"] {
            assert!(is_reference(image), "{image}");
        }
        for image in ["Nginx", "a//b", "a:", "x:ta g", "/a", "a/B", "http://x/y"] {
            assert!(!is_reference(image), "{image}");
        }
    }
}
