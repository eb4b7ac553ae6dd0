//! Beside which services a task runs: those that its constraints want on its node, or want away from it.
//!
//! To be apart holds both ways: a service that wants to be apart from another one keeps that one away, too. Nobody
//! waits for who waits for him: of services that want to be with each other, round a circle of several too,
//! the first task goes anywhere, and the others follow it.

use crate::index::Index;
use std::collections::BTreeSet;
use store::View;
use types::{Affinity, NodeId, STACK_LABEL, Service, ServiceId, Task};

/// What a task wants of other services on its node.
#[derive(Clone, Debug)]
pub(super) struct Term {
    /// What they are called.
    words: String,
    services: BTreeSet<ServiceId>,
    /// Where tasks of them are.
    nodes: BTreeSet<NodeId>,
    with: bool,
    pub(super) soft: bool,
    /// They wait for the task's own service.
    waived: bool,
}

impl Term {
    pub(super) fn holds(&self, node: &NodeId) -> bool {
        self.waived || self.nodes.contains(node) == self.with
    }

    /// What is not so on a node where it does not hold.
    pub(super) fn lack(&self) -> String {
        let Self { words, with, .. } = self;
        if *with { format!("runs no task of {words}") } else { format!("has a task of {words}") }
    }

    /// Says whether it may be another one once a task of this service is placed.
    pub(super) fn follows(&self, service: &ServiceId) -> bool {
        self.waived || self.services.contains(service)
    }
}

/// What a task wants of other services on its node, and those of it, as of now.
pub(super) fn terms((view, index): (&View, &Index), task: &Task) -> Vec<Term> {
    if index.affine.is_empty() {
        return Vec::new();
    }
    let me = &task.service;
    let stack = task.service_labels.get(STACK_LABEL).map(String::as_str);
    let own = task.spec.placement.affinities().map(|it| term((view, index), (me, stack), &it));
    let others = index.affine.iter().filter(|(id, _)| *id != me).filter_map(|(id, affinities)| {
        let service = view.service(id)?;
        let is_me = |it: &Affinity| {
            !it.with && !it.soft && resolve(view, stack_of(service), it).contains(me)
        };
        affinities.iter().any(is_me).then(|| Term {
            words: service.spec.name.clone(),
            services: [id.clone()].into(),
            nodes: index.loads.nodes_of(id, false).cloned().collect(),
            with: false,
            soft: false,
            waived: false,
        })
    });
    own.chain(others).collect()
}

fn term(
    (view, index): (&View, &Index),
    (me, stack): (&ServiceId, Option<&str>),
    affinity: &Affinity,
) -> Term {
    let services = resolve(view, stack, affinity);
    let here = |service| index.loads.nodes_of(service, affinity.with).cloned();
    let nodes: BTreeSet<NodeId> = services.iter().flat_map(here).collect();
    let waived = affinity.with
        && !affinity.soft
        && nodes.is_empty()
        && wait_for((view, index), me, &services);
    let (words, soft, with) = (affinity.to_string(), affinity.soft, affinity.with);
    Term { words, services, nodes, with, soft, waived }
}

/// Says whether one of these waits for `me`, and none that does runs.
fn wait_for((view, index): (&View, &Index), me: &ServiceId, them: &BTreeSet<ServiceId>) -> bool {
    let mine = wanted_by((view, index), me);
    let circle: BTreeSet<&ServiceId> =
        mine.iter().filter(|it| wanted_by((view, index), it).contains(me)).collect();
    let runs = |id: &ServiceId| index.loads.nodes_of(id, true).next().is_some();
    them.iter().any(|it| circle.contains(it)) && !runs(me) && !circle.into_iter().any(runs)
}

/// All services that one has to be with, and those that these have to be with.
fn wanted_by((view, index): (&View, &Index), service: &ServiceId) -> BTreeSet<ServiceId> {
    let (mut all, mut next) = (BTreeSet::new(), vec![service.clone()]);
    while let Some(id) = next.pop() {
        let Some(service) = view.service(&id) else { continue };
        let affinities = index.affine.get(&id).into_iter().flatten();
        for affinity in affinities.filter(|it| it.with && !it.soft) {
            for wanted in resolve(view, stack_of(service), affinity) {
                if all.insert(wanted.clone()) {
                    next.push(wanted);
                }
            }
        }
    }
    all
}

fn stack_of(service: &Service) -> Option<&str> {
    service.spec.labels.get(STACK_LABEL).map(String::as_str)
}

/// The services that are meant: those of the same stack go before others of that name.
fn resolve(view: &View, stack: Option<&str>, affinity: &Affinity) -> BTreeSet<ServiceId> {
    let named = |name: &String| {
        let inside = stack.and_then(|stack| view.service_named(&format!("{stack}_{name}")));
        inside.or_else(|| view.service_named(name)).map(|service| service.id.clone())
    };
    affinity.services.iter().filter_map(named).collect()
}

#[cfg(test)]
mod tests {
    use crate::testing::check;
    use expect_test::expect;

    #[test]
    fn a_task_goes_where_the_others_run_and_waits_for_them() {
        check(
            "
            node n1
            node n2
            node n3
            service web replicas=1
            service log replicas=2 constraint=service==web
            service lost replicas=1 constraint=service==nobody
            task web.1 running n2
            ",
            &expect![[r#"
                + log.1 assigned running n2
                + log.2 assigned running n2
                + lost.1 pending running - error: no suitable node (wrong services beside it on 3 nodes). n1: runs no task of nobody; n2: runs no task of nobody; n3: runs no task of nobody
            "#]],
        );
    }

    #[test]
    fn what_is_placed_now_is_followed_at_once() {
        check(
            "
            node n1
            node n2 disk=ssd
            service agent replicas=2 constraint=service==web
            service web replicas=1 constraint=node.labels.disk==ssd
            service side global constraint=service==web
            ",
            &expect![[r#"
                + agent.1 assigned running n2
                + agent.2 assigned running n2
                + side.0 assigned running n2
                + side.0 pending running n1 error: no suitable node (wrong services beside it on 1 node). n1: runs no task of web
                + web.1 assigned running n2
            "#]],
        );
    }

    #[test]
    fn apart_holds_both_ways_and_until_the_other_has_ended() {
        check(
            "
            node n1
            node n2
            node n3
            service db replicas=1 constraint=service!=web
            service web replicas=2
            task db.1 running n1
            task web.1 running n2 desired=shutdown
            ",
            &expect![[r#"
                + web.1 assigned running n2
                + web.2 assigned running n3
            "#]],
        );
        check(
            "
            node n1
            node n2
            service db replicas=1 constraint=service!=web,service!=cache
            service web replicas=1
            task web.1 running n1
            task web.9 running n2 desired=shutdown
            ",
            &expect![[r#"
                + db.1 pending running - error: no suitable node (wrong services beside it on 2 nodes). n1: has a task of web; n2: has a task of web
            "#]],
        );
    }

    #[test]
    fn of_those_that_want_each_other_the_first_goes_anywhere_and_the_others_follow() {
        check(
            "
            node n1
            node n2
            service a replicas=2 constraint=service==b
            service b replicas=2 constraint=service==c
            service c replicas=1 constraint=service==a
            service self replicas=2 constraint=service==self
            ",
            &expect![[r#"
                + a.1 assigned running n1
                + a.2 assigned running n1
                + b.1 assigned running n1
                + b.2 assigned running n1
                + c.1 assigned running n1
                + self.1 assigned running n2
                + self.2 assigned running n2
            "#]],
        );
    }

    #[test]
    fn what_need_not_be_comes_before_an_even_spread_and_after_what_must_be() {
        check(
            "
            node n1 memory=100
            node n2 memory=25
            service web replicas=1
            service near replicas=3 constraint=service==~web memory=10
            service far replicas=2 constraint=service!=~web
            task web.1 running n2
            ",
            &expect![[r#"
                + far.1 assigned running n1
                + far.2 assigned running n1
                + near.1 assigned running n2
                + near.2 assigned running n2
                + near.3 assigned running n1
            "#]],
        );
    }

    #[test]
    fn in_a_stack_its_own_services_go_first() {
        check(
            "
            node n1
            node n2
            service web replicas=1
            service shop_web replicas=1
            service shop_log replicas=1 stack=shop constraint=service==web
            task web.1 running n1
            task shop_web.1 running n2
            ",
            &expect![[r#"
                + shop_log.1 assigned running n2
            "#]],
        );
    }
}
