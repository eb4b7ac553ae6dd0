//! What users want changed, carried out on the manager that leads.

use super::roles::{self, Needed};
use crate::clock::Uptime;
use crate::control;
use crate::find;
use crate::membership::Admission;
use crate::signing::Signer;
use raft::Sequencer;
use std::time::Duration;
use store::View;
use types::{Config, Fault, NodeId, NodeRole, Secret};
use wire::{Order, OrderReply};

/// For another manager to lead.
const TRANSFER_MAX: Duration = Duration::from_secs(5);
/// For the others to be heard of, and between two looks.
const HEARD_MAX: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_millis(50);
/// For a manager to be taken out of the log's membership.
const RESIGN_MAX: Duration = Duration::from_secs(10);

#[derive(Clone, Debug)]
pub(crate) struct Orders {
    sequencer: Sequencer,
    admission: Admission,
    signer: Signer,
    /// Where managers are found: no service may publish it.
    port: u16,
}

impl Orders {
    pub(crate) fn new(
        sequencer: Sequencer,
        (admission, signer): (Admission, Signer),
        port: u16,
    ) -> Self {
        Self { sequencer, admission, signer, port }
    }

    pub(crate) async fn carry_out(&self, order: Order) -> Result<OrderReply, Fault> {
        let (log, mut reply) = (&self.sequencer, OrderReply::default());
        match order {
            Order::CreateService { spec } => {
                control::check_own_port(&spec, self.port)?;
                reply.id = control::service::create(log, *spec).await?.to_string();
            }
            Order::UpdateService { id, version, spec } => {
                if let Some(spec) = &spec {
                    control::check_own_port(spec, self.port)?;
                }
                control::service::update(log, id, version, spec.map(|spec| *spec)).await?;
            }
            Order::RemoveService { id } => control::service::remove(log, id).await?,
            Order::CreateNetwork { spec } => {
                reply.id = control::network::create(log, spec).await?.to_string();
            }
            Order::RemoveNetwork { id } => control::network::remove(log, id).await?,
            Order::CreateSecret { spec } => {
                reply.id = control::file::create::<Secret>(log, spec).await?;
            }
            Order::UpdateSecret { id, version, spec } => {
                control::file::update::<Secret>(log, id, version, spec).await?;
            }
            Order::RemoveSecret { id } => control::file::remove::<Secret>(log, id).await?,
            Order::CreateConfig { spec } => {
                reply.id = control::file::create::<Config>(log, spec).await?;
            }
            Order::UpdateConfig { id, version, spec } => {
                control::file::update::<Config>(log, id, version, spec).await?;
            }
            Order::RemoveConfig { id } => control::file::remove::<Config>(log, id).await?,
            Order::UpdateNode { id, version, spec } => {
                self.may_lose(&id, spec.role).await?;
                control::node::update(log, id, version, spec).await?;
            }
            Order::RemoveNode { id, force } => control::node::remove(log, id, force).await?,
            Order::Resign { id } => self.resign(id).await?,
            Order::Transfer { to } => self.transfer(to).await?,
            Order::UpdateCluster { version, spec, rotate } => {
                control::cluster::update(log, &self.signer, (version, spec), rotate).await?;
            }
            Order::Join { request, from } => {
                reply.issued = Some(self.admission.join(request, from).await?);
            }
        }
        reply.version = log.view().version();
        Ok(reply)
    }

    /// A manager is demoted only where the others can still decide without it. One that leads since
    /// just now has not heard of all of them yet.
    async fn may_lose(&self, id: &NodeId, role: NodeRole) -> Result<(), Fault> {
        let patience = Uptime::now().after(HEARD_MAX);
        loop {
            let view = self.sequencer.view();
            let raft_id = view.node(id).and_then(|node| Some(node.manager.as_ref()?.raft_id));
            let (NodeRole::Worker, Some(raft_id)) = (role, raft_id) else { return Ok(()) };
            let lost = roles::may_lose(&view, &self.sequencer.members(), raft_id);
            let is_over = patience <= Uptime::now();
            match lost {
                Err(Needed::TooFewAnswer) if !is_over => tokio::time::sleep(LOOK).await,
                decided => return decided.map_err(Fault::from),
            }
        }
    }

    /// Another manager leads afterwards; nothing happens where the one that is named does.
    async fn transfer(&self, to: Option<NodeId>) -> Result<(), Fault> {
        let number = match &to {
            None => None,
            Some(id) => {
                let view = self.sequencer.view();
                let manager = view.node(id).and_then(|node| node.manager.as_ref());
                let is_none = || Fault::invalid(format!("node {id} is no manager"));
                Some(manager.ok_or_else(is_none)?.raft_id)
            }
        };
        if number == Some(self.sequencer.member()) {
            return Ok(());
        }
        let members = self.sequencer.members();
        match number {
            None if members.voters.len() < 2 => {
                Err(Fault::unavailable("there is no other manager that could lead the cluster"))
            }
            Some(number) if !members.voters.contains(&number) => {
                let text = "that manager has not caught up with the others yet: try again";
                Err(Fault::unavailable(text))
            }
            _ => self.sequencer.transfer(number, TRANSFER_MAX).await,
        }
    }

    /// Demotes a manager that leaves, and waits until the others count without it. Where it is the one
    /// that leads, another one does first, and is to be asked.
    async fn resign(&self, id: NodeId) -> Result<(), Fault> {
        self.may_lose(&id, NodeRole::Worker).await?;
        let own = find::manager(&self.sequencer.view(), self.sequencer.member()).cloned();
        if own.is_some_and(|own| own.id == id) {
            self.sequencer.transfer(None, TRANSFER_MAX).await?;
            return Err(Fault::not_leading());
        }
        let node = id.clone();
        let demoted = move |view: &View, _| control::node::with_role(view, &node, NodeRole::Worker);
        self.sequencer.sequence(demoted).await?;
        let mut views = self.sequencer.watch();
        let is_out = |view: &View| view.node(&id).is_none_or(|node| node.manager.is_none());
        match tokio::time::timeout(RESIGN_MAX, views.wait_for(is_out)).await {
            Ok(Ok(_view)) => Ok(()),
            Ok(Err(_)) | Err(_) => {
                Err(Fault::unavailable("the other managers did not take note in time"))
            }
        }
    }
}
