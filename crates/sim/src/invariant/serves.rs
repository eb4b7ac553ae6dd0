//! No name and no balancer of a connected node leads to what did not run within the last minute, or
//! was never a task of that service.

use super::{Invariant, Verdict, is_connected};
use crate::context::Happened;
use crate::manager::Manager;
use crate::node::Node;
use crate::user::service_name;
use crate::world::World;
use discovery::{Answer, Kind, Question, SandboxRules, Zone, answer};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;
use store::View;
use types::{Addresses, Protocol, ServiceId, TaskId};

/// Three heartbeats until a node counts as lost, a call that is tried again, and all that is late.
const STALE: Duration = Duration::from_mins(1);

#[derive(Debug, Default)]
pub(super) struct Serves {
    /// When a task's process was seen last; those that run are not here.
    ran: BTreeMap<TaskId, Duration>,
    /// All tasks that ever had an address, and all services that ever had a VIP, a port, a name.
    holders: BTreeMap<IpAddr, BTreeSet<(TaskId, ServiceId)>>,
    vips: BTreeMap<IpAddr, BTreeSet<ServiceId>>,
    ports: BTreeMap<(Protocol, u16), BTreeSet<ServiceId>>,
    names: BTreeMap<String, BTreeSet<ServiceId>>,
    /// Since when a node is well and connected, and all that it depends on.
    well: BTreeMap<usize, Duration>,
    /// In which term, and since when that is led.
    term: Option<(u64, Duration)>,
}

impl Serves {
    fn note(&mut self, before: &View, view: &View) {
        for task in view.tasks() {
            if before.task(&task.id).is_some_and(|was| std::sync::Arc::ptr_eq(was, task)) {
                continue;
            }
            let holder = (task.id.clone(), task.service.clone());
            let attached = task.attachments.iter().map(|it| it.addresses);
            let all = attached.chain([task.ingress_addresses]);
            for address in all.flat_map(Addresses::iter) {
                self.holders.entry(address).or_default().insert(holder.clone());
            }
        }
        for service in view.services() {
            let id = &service.id;
            for vip in &service.vips {
                for address in vip.addresses.iter() {
                    self.vips.entry(address).or_default().insert(id.clone());
                }
            }
            for port in &service.ports {
                let key = (port.protocol, port.published);
                self.ports.entry(key).or_default().insert(id.clone());
            }
            self.names.entry(service.spec.name.clone()).or_default().insert(id.clone());
        }
    }

    /// Says what is wrong with leading to an address for one of these services.
    fn check(&self, world: &World, of: Option<&BTreeSet<ServiceId>>, address: IpAddr) -> Verdict {
        let holders = self.holders.get(&address).into_iter().flatten();
        let mut of_service = holders
            .filter(|(_, service)| of.is_some_and(|of| of.contains(service)))
            .map(|(task, _)| task)
            .peekable();
        if of_service.peek().is_none() {
            return Err(format!("{address} was never one of {of:?}"));
        }
        let is_fresh = |task: &TaskId| {
            let ran = self.ran.get(task).is_some_and(|ran| world.ctx.now < *ran + STALE);
            ran || world.nodes.iter().any(|node| node.runs(task))
        };
        if of_service.any(is_fresh) {
            return Ok(());
        }
        Err(format!("{address} has not run for {STALE:?}"))
    }

    fn look_at(&self, world: &World, node: &Node) -> Verdict {
        let mut seen = BTreeSet::new();
        for rules in node.kernel.desired.sandboxes.values() {
            for (vip, backend) in balanced(rules).filter(|it| seen.insert(*it)) {
                let checked = self.check(world, self.vips.get(&vip), backend);
                checked.map_err(|why| format!("VIP {vip}: {why}"))?;
            }
        }
        let own = gateways(node);
        for (key, rules) in &node.kernel.desired.mesh.ports {
            for backend in &rules.backends {
                // A local one is there as long as its sandbox is.
                if own.contains(backend) {
                    continue;
                }
                let checked = self.check(world, self.ports.get(key), *backend);
                checked.map_err(|why| format!("port {}: {why}", key.1))?;
            }
        }
        for zone in node.kernel.zones.values() {
            for number in 0..6 {
                let name = service_name(number);
                let asked = format!("tasks.{name}");
                for address in addresses(zone, &asked) {
                    let checked = self.check(world, self.names.get(&name), address);
                    checked.map_err(|why| format!("name {asked}: {why}"))?;
                }
            }
        }
        Ok(())
    }
}

fn gateways(node: &Node) -> BTreeSet<IpAddr> {
    let sandboxes = node.kernel.desired.sandboxes.values();
    sandboxes.flat_map(|sandbox| sandbox.gateway_addresses.iter()).collect()
}

/// What a name leads to.
pub(super) fn addresses(zone: &Zone, name: &str) -> Vec<IpAddr> {
    match answer(zone, Question { name, kind: Kind::Any }) {
        Answer::Addresses { v4, v6 } => {
            let v4 = v4.iter().copied().map(IpAddr::V4);
            v4.chain(v6.iter().copied().map(IpAddr::V6)).collect()
        }
        _ => Vec::new(),
    }
}

/// VIPs with each of their back ends.
pub(super) fn balanced(rules: &SandboxRules) -> impl Iterator<Item = (IpAddr, IpAddr)> {
    let v4 =
        rules.vips.v4.iter().flat_map(|(vip, to)| {
            to.iter().map(|backend| (IpAddr::V4(*vip), IpAddr::V4(*backend)))
        });
    let v6 =
        rules.vips.v6.iter().flat_map(|(vip, to)| {
            to.iter().map(|backend| (IpAddr::V6(*vip), IpAddr::V6(*backend)))
        });
    v4.chain(v6)
}

impl Invariant for Serves {
    fn name(&self) -> &'static str {
        "names and balancers lead to what serves"
    }

    fn happened(&mut self, world: &World, what: &Happened) -> Verdict {
        match what {
            Happened::Stored { before } => self.note(before, world.view()),
            Happened::Ended { task, .. } => {
                self.ran.insert(task.clone(), world.ctx.now);
            }
            _ => {}
        }
        Ok(())
    }

    fn look(&mut self, world: &World) -> Verdict {
        let now = world.ctx.now;
        let can_write = world.ctx.log.are_disks_well();
        // A new leader gives every node its time anew.
        let term = world.leader().and_then(Manager::leads);
        if std::mem::replace(&mut self.term, term) != term {
            self.well.clear();
        }
        for node in &world.nodes {
            if !(can_write && is_connected(world, node) && node.ills.is_well()) {
                self.well.remove(&node.number);
                continue;
            }
            let since = *self.well.entry(node.number).or_insert(now);
            if since + STALE <= now {
                let looked = self.look_at(world, node);
                looked.map_err(|why| format!("on node {}: {why}", node.number))?;
            }
        }
        Ok(())
    }
}
