//! Which nodes can run a task.

use crate::index::{Carried, host_ports};
use crate::orchestrator::slot::takes_tasks;
use std::collections::BTreeSet;
use types::{Constraint, Mount, Node, Placement, Plugin, Protocol, ServiceId, Task};

/// Why a node cannot run a task, in the order in which it is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Misfit {
    Unavailable,
    Constraints,
    Platform,
    Files,
    Mounts,
    Plugin,
    Cpus,
    Memory,
    Mesh,
    HostPort,
    MaxReplicas,
}

/// What a task asks of its node. Tasks of one service that ask the same can run on the same nodes.
#[derive(Clone, Debug)]
pub(super) struct Requirements {
    pub(super) service: ServiceId,
    pub(super) placement: Placement,
    /// `None`: one of them cannot be read, so no node fulfils them.
    constraints: Option<Vec<Constraint>>,
    nano_cpus: i64,
    memory: i64,
    has_files: bool,
    /// Something is mounted that a release before this one takes for another thing.
    has_new_mounts: bool,
    /// Drivers of its volumes that a node must have.
    plugins: BTreeSet<String>,
    in_mesh: bool,
    host_ports: Vec<(Protocol, u16)>,
}

impl Requirements {
    pub(super) fn of(task: &Task) -> Self {
        let placement = task.spec.placement.clone();
        let constraints = placement.constraints.iter();
        Self {
            service: task.service.clone(),
            constraints: constraints.map(|text| Constraint::parse(text).ok()).collect(),
            placement,
            nano_cpus: task.spec.resources.reserve_nano_cpus,
            memory: task.spec.resources.reserve_memory,
            has_files: task.spec.container.has_files(),
            has_new_mounts: task.spec.container.has_mounts_beyond_names(),
            plugins: plugins(task).map(str::to_owned).collect(),
            in_mesh: !task.ingress_addresses.is_empty(),
            host_ports: host_ports(task).collect(),
        }
    }

    /// Says whether a task asks for the same.
    pub(super) fn are_of(&self, task: &Task) -> bool {
        let resources = &task.spec.resources;
        self.service == task.service
            && self.placement == task.spec.placement
            && (self.nano_cpus, self.memory)
                == (resources.reserve_nano_cpus, resources.reserve_memory)
            && self.has_files == task.spec.container.has_files()
            && self.has_new_mounts == task.spec.container.has_mounts_beyond_names()
            && plugins(task).collect::<BTreeSet<_>>()
                == self.plugins.iter().map(String::as_str).collect()
            && self.in_mesh != task.ingress_addresses.is_empty()
            && host_ports(task).eq(self.host_ports.iter().copied())
    }
}

/// Says whether a node can run a task, and if not why.
pub(super) fn fit(node: &Node, carried: Carried<'_>, asked: &Requirements) -> Result<(), Misfit> {
    let Carried { load, count } = carried;
    if !takes_tasks(node) {
        return Err(Misfit::Unavailable);
    }
    let fulfils = |constraint: &Constraint| constraint.matches(node);
    if !asked.constraints.as_ref().is_some_and(|them| them.iter().all(fulfils)) {
        return Err(Misfit::Constraints);
    }
    if !asked.placement.suits(node) {
        return Err(Misfit::Platform);
    }
    // It would reject the task, again and again.
    if asked.has_files && !store::readers::knows_files(node) {
        return Err(Misfit::Files);
    }
    if asked.has_new_mounts && !store::readers::knows_files(node) {
        return Err(Misfit::Mounts);
    }
    if missing_plugin(node, asked).is_some() {
        return Err(Misfit::Plugin);
    }
    let has = |total: i64, reserved: i128, wanted: i64| {
        wanted <= 0 || i128::from(wanted) <= i128::from(total) - reserved
    };
    if !has(node.description.nano_cpus, load.nano_cpus, asked.nano_cpus) {
        return Err(Misfit::Cpus);
    }
    if !has(node.description.memory_bytes, load.memory, asked.memory) {
        return Err(Misfit::Memory);
    }
    // Others would not find the way to it.
    if asked.in_mesh && node.ingress_addresses.is_empty() {
        return Err(Misfit::Mesh);
    }
    if asked.host_ports.iter().any(|port| load.has_port(*port)) {
        return Err(Misfit::HostPort);
    }
    let max = usize::try_from(asked.placement.max_replicas_per_node).unwrap_or(usize::MAX);
    if max > 0 && count >= max {
        return Err(Misfit::MaxReplicas);
    }
    Ok(())
}

/// Drivers of volumes that only plugins have.
fn plugins(task: &Task) -> impl Iterator<Item = &str> {
    task.spec.container.mounts.iter().filter_map(Mount::plugin)
}

/// The first driver that a task asks for and a node does not have.
pub(super) fn missing_plugin<'a>(node: &Node, asked: &'a Requirements) -> Option<&'a str> {
    let has = |name: &str| node.description.engine.has_plugin(Plugin::VOLUME, name);
    asked.plugins.iter().map(String::as_str).find(|name| !has(name))
}

/// The first constraint that a node does not fulfil, in words.
pub(super) fn first_unfulfilled(node: &Node, asked: &Requirements) -> String {
    let Some(constraints) = &asked.constraints else {
        return "a constraint cannot be read".to_owned();
    };
    constraints.iter().find_map(|constraint| constraint.lack(node)).unwrap_or_default()
}

/// The first port of the host that a task asks for and another one has.
pub(super) fn taken_port(carried: Carried<'_>, asked: &Requirements) -> Option<(Protocol, u16)> {
    asked.host_ports.iter().copied().find(|port| carried.load.has_port(*port))
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
                + db.2 pending running - error: no suitable node (insufficient resources on 2 nodes; scheduling constraints not satisfied on 1 node). n2: 40 B of 100 B memory free; n3: 50 B of 50 B memory free; n1: node.labels.disk==ssd is missing
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
                + none.1 pending running - error: no suitable node (unsupported platform on 2 nodes). n1: is /aarch64; n2: is /x86_64
                + one.1 assigned running n2
                + one.2 assigned running n2
            "#]],
        );
    }

    #[test]
    fn what_has_secrets_or_configs_goes_where_the_release_knows_them() {
        check(
            "
            node n1 log-format=3
            node n2
            service none replicas=2
            service one replicas=2 secret=key
            service all global config=app
            ",
            &expect![[r#"
                + all.0 assigned running n1
                + all.0 pending running n2 error: no suitable node (release without secrets and configs, to be updated first, on 1 node). n2: its release knows no secrets and configs
                + none.1 assigned running n2
                + none.2 assigned running n1
                + one.1 assigned running n1
                + one.2 assigned running n1
            "#]],
        );
        check(
            "
            node n1
            node n2
            service one replicas=1 secret=key
            ",
            &expect![[r#"
                + one.1 pending running - error: no suitable node (release without secrets and configs, to be updated first, on 2 nodes). n1: its release knows no secrets and configs; n2: its release knows no secrets and configs
            "#]],
        );
        check(
            "
            node n1
            node n2 log-format=3
            service one replicas=1 secret=key
            task one.1 pending - error=no_suitable_node
            ",
            &expect![[r#"
                ~ one.1 assigned running n2
            "#]],
        );
    }

    #[test]
    fn a_task_goes_where_the_driver_of_its_volumes_is() {
        check(
            "
            node n1 log-format=3 drivers=flock
            node n2 log-format=3
            node n3 drivers=flock
            service db replicas=2 volume-driver=flock
            service own replicas=1 volume-driver=local
            service none replicas=1 volume-driver=other
            ",
            &expect![[r#"
                + db.1 assigned running n1
                + db.2 assigned running n1
                + none.1 pending running - error: no suitable node (missing plugin on 2 nodes; release without options and paths of volumes, to be updated first, on 1 node). n1: the volume driver other is missing; n2: the volume driver other is missing; n3: its release knows volumes by their names alone
                + own.1 assigned running n2
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
                + proxy.3 pending running - ports 80:80/tcp/host error: no suitable node (host-mode port already in use on 2 nodes). n1: port 80/tcp is in use; n2: port 80/tcp is in use
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
                + web.3 pending running - error: no suitable node (max replicas per node limit exceed). n1: has 1 of at most 1; n2: has 1 of at most 1
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
