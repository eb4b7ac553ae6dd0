//! Which nodes can run a task.

use super::beside::{Term, terms};
use crate::index::{Carried, Index, Load, host_ports};
use crate::orchestrator::slot::takes_tasks;
use std::collections::BTreeSet;
use store::View;
use types::{
    Amount, Constraint, GenericReservations, GenericResources, Mount, Node, Placement, Plugin,
    Protocol, ServiceId, Task,
};

/// Why a node cannot run a task, in the order in which it is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Misfit {
    Unavailable,
    Constraints,
    Platform,
    Files,
    Access,
    Beside,
    Mounts,
    Plugin,
    Cpus,
    Memory,
    Generic,
    Mesh,
    HostPort,
    MaxReplicas,
}

/// What a task asks of its node. Tasks of one service that ask the same can run on the same nodes.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is asked by itself")]
pub(super) struct Requirements {
    pub(super) service: ServiceId,
    pub(super) placement: Placement,
    /// `None`: one of them cannot be read, so no node fulfils them.
    constraints: Option<Vec<Constraint>>,
    pub(super) nano_cpus: i64,
    pub(super) memory: i64,
    generic: GenericReservations,
    has_files: bool,
    asks_of_node: bool,
    /// Something is mounted that a release before this one takes for another thing.
    has_new_mounts: bool,
    /// Drivers of its volumes that a node must have.
    plugins: BTreeSet<String>,
    in_mesh: bool,
    host_ports: Vec<(Protocol, u16)>,
    /// What is wanted of other services on the node, as of when these were made.
    pub(super) terms: Vec<Term>,
}

impl Requirements {
    pub(super) fn of((view, index): (&View, &Index), task: &Task) -> Self {
        let placement = task.spec.placement.clone();
        Self {
            service: task.service.clone(),
            constraints: placement.of_nodes().collect(),
            placement,
            terms: terms((view, index), task),
            nano_cpus: task.spec.resources.reserve_nano_cpus,
            memory: task.spec.resources.reserve_memory,
            generic: task.spec.generic.clone(),
            has_files: task.spec.container.has_files(),
            asks_of_node: task.spec.asks_of_node(),
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
            && self.generic == task.spec.generic
            && self.has_files == task.spec.container.has_files()
            && self.asks_of_node == task.spec.asks_of_node()
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
    // It would start it without.
    if asked.asks_of_node && !store::readers::knows_files(node) {
        return Err(Misfit::Access);
    }
    if first_broken(node, asked).is_some() {
        return Err(Misfit::Beside);
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
    if claims(node, load, &asked.generic).any(|(_, claim)| claim.is_err()) {
        return Err(Misfit::Generic);
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

/// The first condition on other services on a node that does not hold there and must.
pub(super) fn first_broken<'a>(node: &Node, asked: &'a Requirements) -> Option<&'a Term> {
    asked.terms.iter().find(|term| !term.soft && !term.holds(&node.id))
}

/// What a task would be given of each kind of generic resources that it asks for; of one that there is
/// too little of, what is free. `None`: the node has nothing of that kind.
fn claims<'a>(
    node: &'a Node,
    load: &'a Load,
    wanted: &'a GenericReservations,
) -> impl Iterator<Item = (&'a str, Result<Amount, Option<Amount>>)> {
    wanted.iter().map(move |(kind, wanted)| {
        let free = node.description.generic.get(kind).map(|has| load.free(kind, has));
        let claim = free.as_ref().and_then(|free| types::generic::claim(free, *wanted));
        (kind.as_str(), claim.ok_or(free))
    })
}

/// What a task is given of the generic resources of its node.
pub(super) fn given(node: &Node, load: &Load, task: &Task) -> GenericResources {
    let claims = claims(node, load, &task.spec.generic);
    claims.filter_map(|(kind, claim)| Some((kind.to_owned(), claim.ok()?))).collect()
}

/// The first kind of generic resources that there is too little of: its name, how much of it is free and
/// how much there is; `None`: nothing.
pub(super) fn lacking_kind(
    node: &Node,
    load: &Load,
    asked: &Requirements,
) -> Option<(String, Option<(u64, u64)>)> {
    claims(node, load, &asked.generic).find_map(|(kind, claim)| {
        let free = claim.err()?;
        let has = node.description.generic.get(kind);
        let amounts = free.zip(has).map(|(free, has)| (free.count(), has.count()));
        Some((kind.to_owned(), amounts))
    })
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
                + db.2 pending running - error: no suitable node (insufficient resources on 2 nodes; scheduling constraints not satisfied on 1 node). n3: 50 B of 50 B memory free; n2: 40 B of 100 B memory free; n1: node.labels.disk==ssd is missing
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
    fn what_asks_anything_of_its_node_goes_where_the_release_knows_it() {
        check(
            "
            node n1 log-format=3
            node n2
            service hosted global networks=686f737400000000000000000000000000000000000000000000000000000000
            service rights replicas=2 label=skep.privileged
            ",
            &expect![[r#"
                + hosted.0 assigned running n1
                + hosted.0 pending running n2 error: no suitable node (release without what a service asks of its node, to be updated first, on 1 node). n2: its release knows nothing of what is asked of it
                + rights.1 assigned running n1
                + rights.2 assigned running n1
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
    fn a_task_is_given_what_it_asks_for_of_generic_resources_and_nobody_else_has() {
        check(
            "
            node n1 generic=gpu=a,gpu=b,seat=3
            node n2 generic=gpu=c
            node n3
            service one replicas=4 generic=gpu=1
            service two replicas=2 generic=seat=2
            task one.1 running n1 given=gpu=a
            task one.2 complete n1 given=gpu=b desired=shutdown
            ",
            &expect![[r#"
                + one.2 assigned running n2 given gpu=c
                + one.3 assigned running n1 given gpu=b
                + one.4 pending running - error: no suitable node (insufficient resources on 3 nodes). n1: 0 of 2 gpu free; n2: 0 of 1 gpu free; n3: has no gpu
                + two.1 assigned running n1 given seat=2
                + two.2 pending running - error: no suitable node (insufficient resources on 3 nodes). n1: 1 of 3 seat free; n2: has no seat; n3: has no seat
            "#]],
        );
        check(
            "
            node n1 generic=gpu=a,gpu=b,gpu=c
            service one replicas=1 generic=gpu=1
            service two replicas=1 generic=gpu=2
            task one.1 running n1 desired=shutdown given=gpu=b
            task one.1 pending -
            ",
            &expect![[r#"
                + two.1 pending running - error: no suitable node (insufficient resources on 1 node). n1: 1 of 3 gpu free
                ~ one.1 assigned running n1 given gpu=a
            "#]],
        );
        // What is only counted now is no other one's before the names that were given have come back.
        check(
            "
            node n1 generic=gpu=3
            node n2 generic=seat=a,seat=b
            service one replicas=1 generic=gpu=2
            service two replicas=1 generic=seat=2
            task one.1 running n1 desired=shutdown given=gpu=a,gpu=b
            task two.1 running n2 desired=shutdown given=seat=1
            ",
            &expect![[r#"
                + one.1 pending running - error: no suitable node (insufficient resources on 2 nodes). n1: 1 of 3 gpu free; n2: has no gpu
                + two.1 pending running - error: no suitable node (insufficient resources on 2 nodes). n2: 1 of 2 seat free; n1: has no seat
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
