//! The cluster's part of the API: what a manager answers.

mod backup;
mod files;
mod logs;
mod networks;
mod nodes;
mod raft;
mod services;
mod swarm;
mod tasks;

pub(crate) use logs::{LogQuery, unix_time};

use crate::{Api, port::LOCKED, port::Member, port::Membership};
use axum::Router;
use manager::Manager;
use store::View;
use types::Fault;

/// The routes of this part.
pub(crate) fn routes() -> Router<Api> {
    Router::new()
        .merge(swarm::routes())
        .merge(nodes::routes())
        .merge(services::routes())
        .merge(tasks::routes())
        .merge(networks::routes())
        .merge(files::routes())
        .merge(backup::routes())
        .merge(raft::routes())
}

impl Api {
    /// The cluster's operations, or Docker's words on why this node has none.
    pub(crate) fn manager(&self) -> Result<Manager, Fault> {
        self.node.membership().manager()
    }

    /// All that the cluster has, with everything that anybody was told is done.
    pub(crate) async fn view(&self) -> Result<View, Fault> {
        self.manager()?.fresh().await
    }

    /// This node as a member of its cluster.
    pub(crate) fn member(&self) -> Result<Member, Fault> {
        match self.node.membership() {
            Membership::Active(member) => Ok(*member),
            Membership::Locked => Err(Fault::unavailable(LOCKED)),
            Membership::Inactive | Membership::Pending { .. } => {
                Err(Fault::unavailable("This node is not part of a swarm"))
            }
        }
    }
}

#[cfg(test)]
pub(crate) fn served() -> Vec<crate::request::coverage::Served> {
    let parts = [
        swarm::served(),
        nodes::served(),
        services::served(),
        tasks::served(),
        networks::served(),
        files::served(),
    ];
    parts.into_iter().flatten().collect()
}
