//! What users do, by what they see at that time.

use super::rpc::node_id;
use super::{Manager, Reply, Request};
use crate::context::Context;
use crate::user::{Operation, network, network_name, service_name};
use manager::bootstrap::{First, objects};
use manager::control;
use raft::Decide;
use store::{Changes, Tx, View};
use types::{
    Availability, ClusterSpec, Fault, JoinTokens, NetworkId, Node, NodeDescription, NodeSpec,
    PublishMode, RestartCondition, RootCa, ServiceId, ServiceSpec, Timestamp, Version,
};

/// The image that every service has in the end.
const MENDED: &str = "good:mended";

impl Manager {
    /// The first objects of the cluster, and its first process.
    pub fn found(&mut self, ctx: &mut Context) {
        let first = First {
            manager_address: "manager:2377".to_owned(),
            cluster: super::CLUSTER.into(),
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
        let time = super::wall(ctx.now, self.skew);
        let made = (JoinTokens::default(), NetworkId::from("ingress"));
        let changes =
            objects(&View::default(), first, made, time).expect("there is no cluster yet");
        self.disk.append(&View::default(), &changes, (Version(1), time));
        self.start(ctx);
    }

    fn propose<F>(&mut self, what: String, ctx: &mut Context, decide: F)
    where
        F: FnOnce(&View, Timestamp) -> Result<Changes, Fault> + Send + 'static,
    {
        let decide: Decide = Box::new(decide);
        self.sequence(Request { decide, reply: Reply::User(what) }, ctx);
    }

    /// A machine shows a token, as in `manager::membership`.
    pub fn join(&mut self, number: usize, ctx: &mut Context) {
        let node = Node {
            id: node_id(number),
            spec: NodeSpec { name: format!("host{number}"), ..NodeSpec::default() },
            ..Node::default()
        };
        self.propose(format!("join of node {number}"), ctx, move |view, _| {
            let mut tx = Tx::new(view);
            if view.node(&node.id).is_none() {
                tx.put_node(node);
            }
            Ok(tx.finish())
        });
    }

    pub fn user(&mut self, operation: Operation, ctx: &mut Context) {
        let what = format!("{operation:?}");
        if !self.is_up() {
            return ctx.tell(|| format!("user: {what}: no manager answers"));
        }
        let view = self.view().clone();
        match operation {
            Operation::CreateNetwork(number) => {
                let id = NetworkId::draw(&mut self.random);
                self.propose(what, ctx, move |view, _| {
                    control::network::with_new(view, id, network(number))
                });
            }
            Operation::RemoveNetwork(number) => {
                let Some(id) = view.network_named(&network_name(number)).map(|it| it.id.clone())
                else {
                    return;
                };
                self.propose(what, ctx, move |view, _| control::network::without(view, &id));
            }
            Operation::CreateService(number, wish) => {
                let id = ServiceId::draw(&mut self.random);
                let spec = wish.spec(service_name(number), |it| network_id(&view, it));
                self.propose(what, ctx, move |view, _| control::service::with_new(view, id, spec));
            }
            Operation::UpdateService(number, mut wish) => {
                let Some(service) = view.service_named(&service_name(number)) else { return };
                wish.global = service.spec.mode == types::ServiceMode::Global;
                let spec = wish.spec(service.spec.name.clone(), |it| network_id(&view, it));
                self.update(what, (service.id.clone(), service.meta.version, Some(spec)), ctx);
            }
            Operation::Scale(number, replicas) => {
                let Some(service) = view.service_named(&service_name(number)) else { return };
                let mut spec = service.spec.clone();
                spec.mode = types::ServiceMode::Replicated { replicas };
                self.update(what, (service.id.clone(), service.meta.version, Some(spec)), ctx);
            }
            Operation::Rollback(number) => {
                let Some(service) = view.service_named(&service_name(number)) else { return };
                self.update(what, (service.id.clone(), service.meta.version, None), ctx);
            }
            Operation::RemoveService(number) => {
                let Some(service) = view.service_named(&service_name(number)) else { return };
                let id = service.id.clone();
                self.propose(what, ctx, move |view, _| control::service::without(view, &id));
            }
            Operation::Availability(number, availability) => {
                self.edit_node(what, number, ctx, |spec| spec.availability = availability);
            }
            Operation::Label(number, has) => self.edit_node(what, number, ctx, |spec| {
                spec.labels.clear();
                if has {
                    spec.labels.insert("disk".to_owned(), "ssd".to_owned());
                }
            }),
            Operation::RemoveNode(number, force) => {
                let id = node_id(number);
                self.propose(what, ctx, move |view, now| {
                    control::node::without(view, &id, (force, now))
                });
            }
            // Not of the manager.
            Operation::Join | Operation::Leave(_) => {}
        }
    }

    fn edit_node(
        &mut self,
        what: String,
        number: usize,
        ctx: &mut Context,
        edit: impl FnOnce(&mut NodeSpec),
    ) {
        let id = node_id(number);
        let Some(node) = self.view().node(&id).cloned() else { return };
        let (mut spec, version) = (node.spec.clone(), node.meta.version);
        edit(&mut spec);
        self.propose(what, ctx, move |view, _| {
            control::node::with_updated(view, &id, version, spec)
        });
    }

    fn update(
        &mut self,
        what: String,
        (id, version, spec): (ServiceId, Version, Option<ServiceSpec>),
        ctx: &mut Context,
    ) {
        self.propose(what, ctx, move |view, now| {
            control::service::with_updated(view, &id, version, (spec, now))
        });
    }

    /// Users mend what they broke: every service gets an image that works, for as long as it runs.
    pub fn mend(&mut self, ctx: &mut Context) {
        // Whoever wrote to a service meanwhile makes an update fail: it is tried again.
        let view = self.view().clone();
        if !self.is_idle() {
            return;
        }
        for service in view.services().filter(|it| it.spec.task.container.image != MENDED) {
            let mut spec = service.spec.clone();
            MENDED.clone_into(&mut spec.task.container.image);
            spec.task.restart.condition = RestartCondition::Any;
            spec.task.restart.max_attempts = 0;
            // As many tasks as wanted may not fit on the nodes otherwise.
            spec.endpoint.ports.retain(|port| port.mode == PublishMode::Ingress);
            // Another one has its port, e.g. since a rollback: it goes without.
            if !service.allocation_error.is_empty() {
                spec.endpoint.ports.clear();
            }
            let what = format!("mends {}", spec.name);
            self.update(what, (service.id.clone(), service.meta.version, Some(spec)), ctx);
        }
        // There is always one node for everything.
        let is_for_all = |node: &std::sync::Arc<Node>| {
            node.spec.availability == Availability::Active && !node.spec.labels.is_empty()
        };
        if !view.node(&node_id(0)).is_some_and(is_for_all) {
            self.edit_node("mends node 0".to_owned(), 0, ctx, |spec| {
                spec.availability = Availability::Active;
                spec.labels.insert("disk".to_owned(), "ssd".to_owned());
            });
        }
    }
}

/// The id that a user finds for a network; one that is not there is not found later either.
fn network_id(view: &View, number: u64) -> NetworkId {
    view.network_named(&network_name(number)).map_or_else(|| "none".into(), |it| it.id.clone())
}
