//! Services that want to be with others or apart from them.

use std::collections::BTreeSet;
use std::sync::Arc;
use store::View;
use types::{NodeId, ServiceId, Task};

/// What is placed now is with those that it wants to be with, unless they wait for it, and apart from
/// those that it or they want to be apart from.
pub(super) fn check(before: &View, after: &View) {
    let is_new = |task: &&Arc<Task>| {
        let was_placed = before.task(&task.id).is_some_and(|task| task.is_placed());
        task.is_placed() && task.is_wanted() && !was_placed
    };
    for task in after.tasks().filter(is_new) {
        let Some(node) = &task.node else { continue };
        for affinity in task.spec.placement.affinities().filter(|it| !it.soft) {
            let named = affinity.services.iter().filter_map(|name| after.service_named(name));
            let named: Vec<&ServiceId> = named.map(|service| &service.id).collect();
            // What a former spec wants, others do not keep to.
            let current = after.service(&task.service);
            let mut wants = current.into_iter().flat_map(|it| it.spec.task.placement.affinities());
            if !wants.any(|it| it == affinity) {
                continue;
            }
            let is_there = named.iter().any(|it| has(after, it, node, affinity.with));
            let runs = named.iter().any(|it| runs(after, it, affinity.with));
            let has_others = || named.iter().any(|it| circle(after, it).contains(&task.service));
            let holds = if affinity.with { is_there || (!runs && has_others()) } else { !is_there };
            assert!(holds, "{} is beside the wrong ones: {affinity:?}", task.name());
        }
        for other in after.services().filter(|other| other.id != task.service) {
            let mut affinities = other.spec.task.placement.affinities();
            let avoids = affinities
                .any(|it| !it.with && !it.soft && it.services.contains(&task.service_name));
            assert!(
                !avoids || !has(after, &other.id, node, false),
                "{} comes too near",
                task.name()
            );
        }
    }
}

fn counts(task: &Task, wanted: bool) -> bool {
    task.is_placed() && (!wanted || task.is_wanted())
}

fn has(view: &View, service: &ServiceId, node: &NodeId, wanted: bool) -> bool {
    view.tasks_of_service(service).any(|it| counts(it, wanted) && it.node.as_ref() == Some(node))
}

fn runs(view: &View, service: &ServiceId, wanted: bool) -> bool {
    view.tasks_of_service(service).any(|it| counts(it, wanted))
}

/// Whom a service waits for, and whom those wait for.
fn circle(view: &View, service: &ServiceId) -> BTreeSet<ServiceId> {
    let mut all = BTreeSet::new();
    let mut next = vec![service.clone()];
    while let Some(service) = next.pop().and_then(|id| view.service(&id)) {
        let hard = service.spec.task.placement.affinities().filter(|it| it.with && !it.soft);
        for name in hard.flat_map(|it| it.services) {
            let Some(service) = view.service_named(&name) else { continue };
            if all.insert(service.id.clone()) {
                next.push(service.id.clone());
            }
        }
    }
    all
}
