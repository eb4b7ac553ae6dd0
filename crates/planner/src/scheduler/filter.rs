//! Which nodes can run a task.

use super::place::Load;
use crate::orchestrator::slot::takes_tasks;
use types::{Constraint, Protocol, PublishMode, Task};

/// Why a node cannot run a task, in the order in which it is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Misfit {
    Unavailable,
    Constraints,
    Platform,
    Cpus,
    Memory,
    Mesh,
    HostPort,
    MaxReplicas,
}

/// What a task asks of its node.
pub(super) struct Wish<'a> {
    task: &'a Task,
    /// `None`: one of them cannot be read, so no node fulfils them.
    constraints: Option<Vec<Constraint>>,
    host_ports: Vec<(Protocol, u16)>,
}

impl<'a> Wish<'a> {
    pub(super) fn of(task: &'a Task) -> Self {
        let constraints = &task.spec.placement.constraints;
        let host = task.ports.iter().filter(|port| port.mode == PublishMode::Host);
        Self {
            task,
            constraints: constraints.iter().map(|text| Constraint::parse(text).ok()).collect(),
            host_ports: host.map(|port| (port.protocol, port.published)).collect(),
        }
    }
}

/// Says whether a node can run a task, and if not why.
pub(super) fn fit(load: &Load, wish: &Wish<'_>) -> Result<(), Misfit> {
    if !takes_tasks(&load.node) {
        return Err(Misfit::Unavailable);
    }
    let fulfils = |constraint: &Constraint| constraint.matches(&load.node);
    if !wish.constraints.as_ref().is_some_and(|them| them.iter().all(fulfils)) {
        return Err(Misfit::Constraints);
    }
    if !wish.task.spec.placement.suits(&load.node) {
        return Err(Misfit::Platform);
    }
    let resources = &wish.task.spec.resources;
    let description = &load.node.description;
    let room = |total: i64, reserved: i64, wanted: i64| {
        wanted <= 0 || wanted <= total.saturating_sub(reserved)
    };
    if !room(description.nano_cpus, load.nano_cpus, resources.reserve_nano_cpus) {
        return Err(Misfit::Cpus);
    }
    if !room(description.memory_bytes, load.memory, resources.reserve_memory) {
        return Err(Misfit::Memory);
    }
    // Others would not find the way to it.
    if wish.task.ingress_address.is_some() && load.node.ingress_address.is_none() {
        return Err(Misfit::Mesh);
    }
    if wish.host_ports.iter().any(|port| load.host_ports.contains(port)) {
        return Err(Misfit::HostPort);
    }
    let max = usize::try_from(wish.task.spec.placement.max_replicas_per_node).unwrap_or(usize::MAX);
    if max > 0 && load.count(&wish.task.service) >= max {
        return Err(Misfit::MaxReplicas);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::testing::check;
    use expect_test::expect;

    #[test]
    fn a_task_goes_where_its_constraints_and_reservations_allow() {
        check(
            "
            node n1 memory=100
            node n2 memory=100 disk=ssd
            node n3 memory=50 disk=ssd
            service other replicas=0
            service db replicas=2 memory=60 constraint=node.labels.disk==ssd
            ",
            &expect![[r#"
                + db.1 assigned running n2
                + db.2 pending running - error: no suitable node (insufficient memory on 2 nodes; scheduling constraints not satisfied on 1 node)
            "#]],
        );
    }

    #[test]
    fn an_image_goes_where_its_platform_is() {
        check(
            "
            node n1 arch=aarch64
            node n2 arch=x86_64
            service one replicas=2 platforms=amd64
            service all global platforms=arm64
            service none replicas=1 platforms=s390x
            ",
            &expect![[r#"
                + all.0 assigned running n1
                + none.1 pending running - error: no suitable node (unsupported platform on 2 nodes)
                + one.1 assigned running n2
                + one.2 assigned running n2
            "#]],
        );
    }

    #[test]
    fn a_port_of_the_host_is_there_once() {
        check(
            "
            node n1
            node n2
            service proxy replicas=3 ports=host:80:80
            ",
            &expect![[r#"
                + proxy.1 assigned running n1 ports 80:80/tcp/host
                + proxy.2 assigned running n2 ports 80:80/tcp/host
                + proxy.3 pending running - ports 80:80/tcp/host error: no suitable node (host-mode port already in use on 2 nodes)
                ~ proxy ports 80:80/tcp/host
            "#]],
        );
    }

    #[test]
    fn no_node_gets_more_than_the_maximum() {
        check(
            "
            node n1
            node n2
            service web replicas=3 max-per-node=1
            ",
            &expect![[r#"
                + web.1 assigned running n1
                + web.2 assigned running n2
                + web.3 pending running - error: no suitable node (max replicas per node limit exceed)
            "#]],
        );
    }

    #[test]
    fn a_pending_task_is_placed_when_its_node_comes_and_says_nothing_new_before() {
        let pending = "
            service web replicas=1
            task web.1 pending - error=no_suitable_node
            ";
        check(pending, &expect![""]);
        check(
            &format!("node n1\n{pending}"),
            &expect![[r#"
                ~ web.1 assigned running n1
            "#]],
        );
    }
}
