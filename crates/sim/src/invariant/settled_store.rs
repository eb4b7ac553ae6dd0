//! After the calm, tables hold what users want and nothing else: no update is under way, nothing
//! that was removed is left, every network and service has what it needs.

use super::{Invariant, Verdict};
use crate::random::Random;
use crate::world::World;
use types::{EndpointMode, PublishMode, UpdateStatus};

#[derive(Debug)]
pub(super) struct SettledStore;

impl Invariant for SettledStore {
    fn name(&self) -> &'static str {
        "after the calm every update has ended and nothing is left over"
    }

    fn settled(&mut self, world: &World) -> Verdict {
        let view = world.manager.view();
        if !world.manager.is_idle() {
            return Err("the manager has something to write".to_owned());
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
            for attachment in &service.spec.task.networks {
                let has = service.vips.iter().any(|vip| vip.network == attachment.target);
                if has != wants_vips {
                    return Err(format!("{name} has the VIPs {:?}", service.vips));
                }
            }
            let published = service.ports.iter().filter(|it| it.mode == PublishMode::Ingress);
            if published.count() != service.spec.endpoint.ports.len() {
                return Err(format!("{name} has the ports {:?}", service.ports));
            }
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
