//! After the calm, tables hold what users want and nothing else: no update is under way, nothing
//! that was removed is left, every network and service has what it needs.

use super::{Invariant, Verdict};
use crate::manager::Manager;
use crate::random::Random;
use crate::world::World;
use std::collections::{BTreeMap, BTreeSet};
use store::View;
use types::{
    EndpointMode, NetworkId, NodeId, PublishMode, PublishedPort, Service, TaskState, UpdateStatus,
};

#[derive(Debug)]
pub(super) struct SettledStore;

impl Invariant for SettledStore {
    fn name(&self) -> &'static str {
        "after the calm every update has ended and nothing is left over"
    }

    fn settled(&mut self, world: &World) -> Verdict {
        let view = world.view();
        if !world.leader().is_some_and(Manager::is_idle) {
            return Err("nobody leads, or there is something to write".to_owned());
        }
        if world
            .managers
            .values()
            .any(|it| it.view().is_none_or(|it| it.version() < view.version()))
        {
            return Err("a manager is behind".to_owned());
        }
        let plan = planner::plan(view, view.time(), &mut Random::new(1));
        if !plan.changes.is_empty() {
            return Err(format!("there is something to plan: {:?}", plan.changes));
        }
        for service in view.services() {
            let name = &service.spec.name;
            if service.update.as_ref().is_some_and(UpdateStatus::runs) {
                return Err(format!("the update of {name} has not ended: {:?}", service.update));
            }
            if !service.allocation_error.is_empty() {
                continue;
            }
            let wants_vips = service.spec.endpoint.mode == EndpointMode::Vip;
            let mut wanted: BTreeSet<&NetworkId> = BTreeSet::new();
            if wants_vips {
                wanted.extend(service.spec.task.networks.iter().map(|it| &it.target));
                let in_mesh = service.ports.iter().any(PublishedPort::in_mesh);
                wanted.extend(view.ingress_network().filter(|_| in_mesh).map(|it| &it.id));
            }
            let has: BTreeSet<&NetworkId> = service.vips.iter().map(|vip| &vip.network).collect();
            if has != wanted || has.len() != service.vips.len() {
                return Err(format!("{name} has the VIPs {:?}", service.vips));
            }
            let published = service.ports.iter().filter(|it| it.mode == PublishMode::Ingress);
            if published.count() != service.spec.endpoint.ports.len() {
                return Err(format!("{name} has the ports {:?}", service.ports));
            }
            history(view, service)?;
        }
        if let Some(network) = view.networks().find(|it| it.removed || it.vni == 0) {
            return Err(format!("network {network:?}"));
        }
        match view.tasks().find(|task| view.service(&task.service).is_none()) {
            Some(task) => Err(format!("task {} of no service: {:?}", task.id, task.status)),
            None => Ok(()),
        }
    }
}

/// No more is remembered than the cluster's spec says. (Of tasks that were given up and may still
/// run, all.)
fn history(view: &View, service: &Service) -> Verdict {
    let limit = view.cluster().map_or(0, |cluster| cluster.spec.task_history_limit);
    let mut slots: BTreeMap<(u64, Option<&NodeId>), u64> = BTreeMap::new();
    let ended = view.tasks_of_service(&service.id).filter(|task| {
        !task.is_wanted() && !task.occupies() && task.status.state != TaskState::Orphaned
    });
    for task in ended {
        let node = task.node.as_ref().filter(|_| service.spec.mode.is_global());
        *slots.entry((task.slot, node)).or_default() += 1;
    }
    match slots.into_iter().find(|(_, count)| *count > limit) {
        Some((slot, count)) => Err(format!("{count} ended tasks are kept of {slot:?}")),
        None => Ok(()),
    }
}
