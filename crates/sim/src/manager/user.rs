//! What users do, by what they see at that time.

use super::rpc::node_id;
use super::{CLUSTER, Manager, Reply, Request};
use crate::context::Context;
use crate::user::{Operation, SECRET, network, network_name, service_name};
use manager::bootstrap::{First, objects};
use manager::control;
use manager::managers::roles;
use raft::{Decide, FIRST_MEMBER};
use std::time::Duration;
use store::{Changes, Tx, View};
use types::{
    Availability, Cluster, ClusterSpec, DRAIN_LABEL, DRAIN_PACED, Fault, FileContent, FileSpec,
    GivenFile, JoinTokens, ManagerStatus, NetworkId, Node, NodeDescription, NodeId, NodeRole,
    NodeSpec, PublishMode, RestartCondition, RootCa, Secret, ServiceId, ServiceMode, ServiceSpec,
    Timestamp, Version,
};

/// The image that every service has in the end.
const MENDED: &str = "good:mended";
/// That every job has: it comes to an end.
const MENDED_JOB: &str = "job:mended";

/// What a cluster begins with: the first manager, and what others have joined since.
pub fn first(managers: usize, skew: i64) -> [(Changes, Timestamp); 2] {
    let time = super::wall(Duration::ZERO, skew);
    let first = First {
        manager_address: address(0),
        cluster: CLUSTER.into(),
        root_ca: RootCa::default(),
        spec: ClusterSpec { task_history_limit: 2, ..ClusterSpec::default() },
        address_pools: Vec::new(),
        subnet_prefix: 0,
        data_path_port: 0,
        node: node_id(0),
        description: NodeDescription::default(),
        address: [192, 168, 0, 1].into(),
        data_path_address: None,
        availability: Availability::Active,
    };
    let made = (JoinTokens::default(), NetworkId::from("ingress"));
    let changes = objects(&View::default(), first, made, time).expect("there is no cluster yet");
    let mut view = View::default();
    view.apply(&changes, Version(1), time);
    let mut tx = Tx::new(&view);
    if let Some(cluster) = view.cluster() {
        let last_raft_id = managers as u64;
        tx.put_cluster(Cluster { last_raft_id, ..Cluster::clone(cluster) });
    }
    let content = FileContent { data: b"sesame".to_vec().into(), templating: None };
    let spec = FileSpec { name: SECRET.to_owned(), content, ..FileSpec::default() };
    tx.put(Secret::new(SECRET.into(), spec));
    for (machine, raft_id) in (0..managers).zip(FIRST_MEMBER..).skip(1) {
        let role = NodeRole::Manager;
        let name = format!("host{machine}");
        tx.put_node(Node {
            id: node_id(machine),
            spec: NodeSpec { name, role, ..NodeSpec::default() },
            role,
            manager: Some(ManagerStatus { raft_id, address: address(machine) }),
            ..Node::default()
        });
    }
    [(changes, time), (tx.finish(), time)]
}

/// Where the manager on a machine is found.
pub fn address(machine: usize) -> String {
    format!("host{machine}:2377")
}

/// Which machine is found there.
pub fn machine_at(address: &str) -> usize {
    let number = address.strip_prefix("host").and_then(|rest| rest.strip_suffix(":2377"));
    number.and_then(|number| number.parse().ok()).unwrap_or(usize::MAX)
}

/// What a user asks for, and what the manager that leads is to decide of it.
pub(crate) struct Order {
    pub(crate) what: String,
    /// It is to be a manager no more.
    demotes: Option<NodeId>,
    decide: Decide,
}

fn order<F>(what: String, decide: F) -> Order
where
    F: FnOnce(&View, Timestamp) -> Result<Changes, Fault> + Send + 'static,
{
    Order { what, demotes: None, decide: Box::new(decide) }
}

impl Manager {
    /// It has an order carried out. A manager is demoted only where the others can still decide.
    pub(crate) fn carry_out(&mut self, order: Order, ctx: &mut Context) {
        let Order { what, demotes, decide } = order;
        let view = self.view().cloned().unwrap_or_default();
        let node = demotes.and_then(|id| view.node(&id).cloned());
        if let Some(manager) = node.and_then(|node| node.manager.clone()) {
            let members = ctx.log.members(self.id, &ctx.network);
            if let Err(needed) = roles::may_lose(&view, &members, manager.raft_id) {
                let fault = Fault::from(needed);
                return ctx.tell(|| format!("user: {what}: {fault}"));
            }
        }
        self.sequence(Request { decide, reply: Reply::User(what) }, ctx);
    }

    /// A machine shows a token, as in `manager::membership`.
    pub fn join(&mut self, number: usize, ctx: &mut Context) {
        let node = Node {
            id: node_id(number),
            spec: NodeSpec { name: format!("host{number}"), ..NodeSpec::default() },
            ..Node::default()
        };
        let joins = order(format!("join of node {number}"), move |view, _| {
            let mut tx = Tx::new(view);
            if view.node(&node.id).is_none() {
                tx.put_node(node);
            }
            Ok(tx.finish())
        });
        self.carry_out(joins, ctx);
    }

    /// What a user asks this manager for, by what it shows; `None` where there is nothing to ask.
    pub(crate) fn order(&mut self, operation: Operation) -> Option<Order> {
        let what = format!("{operation:?}");
        let view = self.view()?.clone();
        Some(match operation {
            Operation::CreateNetwork(number) => {
                let id = NetworkId::draw(&mut self.random);
                order(what, move |view, _| control::network::with_new(view, id, network(number)))
            }
            Operation::RemoveNetwork(number) => {
                let id = view.network_named(&network_name(number))?.id.clone();
                order(what, move |view, _| control::network::without(view, &id))
            }
            Operation::CreateService(number, wish) => {
                let id = ServiceId::draw(&mut self.random);
                let spec = wish.spec(service_name(number), |it| network_id(&view, it));
                order(what, move |view, now| control::service::with_new(view, id, (spec, now)))
            }
            Operation::UpdateService(number, mut wish) => {
                let service = view.service_named(&service_name(number))?;
                wish.global = service.spec.mode.is_global();
                wish.job = service.spec.mode.is_job();
                let spec = wish.spec(service.spec.name.clone(), |it| network_id(&view, it));
                update(what, (service.id.clone(), service.meta.version, Some(spec)))
            }
            Operation::Scale(number, replicas) => {
                let service = view.service_named(&service_name(number))?;
                let mut spec = service.spec.clone();
                spec.mode = match spec.mode {
                    ServiceMode::ReplicatedJob { max_concurrent, .. } => {
                        ServiceMode::ReplicatedJob { max_concurrent, total_completions: replicas }
                    }
                    ServiceMode::Replicated { .. }
                    | ServiceMode::Global
                    | ServiceMode::GlobalJob => ServiceMode::Replicated { replicas },
                };
                update(what, (service.id.clone(), service.meta.version, Some(spec)))
            }
            Operation::Rollback(number) => {
                let service = view.service_named(&service_name(number))?;
                update(what, (service.id.clone(), service.meta.version, None))
            }
            Operation::RemoveService(number) => {
                let service = view.service_named(&service_name(number))?;
                let id = service.id.clone();
                order(what, move |view, _| control::service::without(view, &id))
            }
            Operation::Availability(number, availability) => {
                edit_node(&view, what, number, |spec| spec.availability = availability)?
            }
            Operation::Label(number, has) => edit_node(&view, what, number, |spec| {
                label(spec, ("disk", "ssd"), has);
            })?,
            Operation::Pace(number, has) => edit_node(&view, what, number, |spec| {
                label(spec, (DRAIN_LABEL, DRAIN_PACED), has);
            })?,
            Operation::RemoveNode(number, force) => {
                let id = node_id(number);
                order(what, move |view, now| control::node::without(view, &id, (force, now)))
            }
            Operation::Role(number, role) => {
                let id = node_id(number);
                let demotes = (role == NodeRole::Worker).then(|| id.clone());
                let with_role = move |view: &View, _| control::node::with_role(view, &id, role);
                Order { demotes, ..order(what, with_role) }
            }
            // Not of the manager.
            Operation::Join | Operation::Leave(_) => return None,
        })
    }

    /// Users mend what they broke: every service gets an image that works, for as long as it runs.
    pub fn mend(&mut self, ctx: &mut Context) {
        // Whoever wrote to a service meanwhile makes an update fail: it is tried again.
        let Some(view) = self.view().filter(|_| self.is_idle()).cloned() else { return };
        for service in view.services() {
            let mut spec = service.spec.clone();
            let mended = if spec.mode.is_job() { MENDED_JOB } else { MENDED };
            if spec.task.container.image == mended {
                continue;
            }
            mended.clone_into(&mut spec.task.container.image);
            spec.task.restart.condition = RestartCondition::Any;
            spec.task.restart.max_attempts = 0;
            // As many tasks as wanted may not fit on the nodes otherwise.
            spec.endpoint.ports.retain(|port| port.mode == PublishMode::Ingress);
            // Another one has its port, e.g. since a rollback: it goes without.
            if !service.allocation_error.is_empty() {
                spec.endpoint.ports.clear();
            }
            let what = format!("mends {}", spec.name);
            let order = update(what, (service.id.clone(), service.meta.version, Some(spec)));
            self.carry_out(order, ctx);
        }
        // There is always one node for everything.
        let is_for_all = |node: &std::sync::Arc<Node>| {
            node.spec.availability == Availability::Active && node.spec.labels.contains_key("disk")
        };
        if !view.node(&node_id(0)).is_some_and(is_for_all) {
            let order = edit_node(&view, "mends node 0".to_owned(), 0, |spec| {
                spec.availability = Availability::Active;
                label(spec, ("disk", "ssd"), true);
            });
            if let Some(order) = order {
                self.carry_out(order, ctx);
            }
        }
    }
}

/// Gives a node a label, or takes it away.
fn label(spec: &mut NodeSpec, (key, value): (&str, &str), has: bool) {
    if has {
        spec.labels.insert(key.to_owned(), value.to_owned());
    } else {
        spec.labels.remove(key);
    }
}

fn edit_node(
    view: &View,
    what: String,
    number: usize,
    edit: impl FnOnce(&mut NodeSpec),
) -> Option<Order> {
    let id = node_id(number);
    let node = view.node(&id)?;
    let (mut spec, version) = (node.spec.clone(), node.meta.version);
    edit(&mut spec);
    Some(order(what, move |view, _| control::node::with_updated(view, &id, version, spec)))
}

fn update(what: String, (id, version, spec): (ServiceId, Version, Option<ServiceSpec>)) -> Order {
    order(what, move |view, now| control::service::with_updated(view, &id, version, (spec, now)))
}

/// The id that a user finds for a network; one that is not there is not found later either.
fn network_id(view: &View, number: u64) -> NetworkId {
    view.network_named(&network_name(number)).map_or_else(|| "none".into(), |it| it.id.clone())
}
