//! One root of trust takes the place of another, node by node.
//!
//! Nodes say who signed their certificates; who has one by somebody else than is wanted is told to
//! renew it, managers before workers, a few at a time. Once all have, the new root is the cluster's
//! and the old one counts no more. Level, not edge: all of it follows from the store, so that a
//! leader that dies leaves nothing half done, and a rotation that another one replaces, or that is
//! called off, ends the same way.
//!
//! A node that is down is waited for: with the old root alone it would be locked out.

use crate::membership::cluster;
use ca::JoinToken;
use raft::Sequencer;
use std::collections::BTreeSet;
use std::convert::Infallible;
use std::time::Duration;
use store::{Changes, Tx, View};
use tokio_util::sync::CancellationToken;
use types::{Cluster, Fault, Issuer, JoinTokens, Node, NodeId, NodeRole, NodeState, RootCa};
use wire::Trust;

/// Nodes that are told to renew their certificates at a time.
const BATCH: usize = 30;
/// After a step that failed.
const RETRY: Duration = Duration::from_secs(1);

/// What nodes are to trust, and who is to renew its certificate now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    roots: String,
    issuer: Issuer,
    due: BTreeSet<NodeId>,
}

impl Wanted {
    /// What follows from the store.
    pub fn of(view: &View) -> Self {
        let Some((cluster, issuer)) = view.cluster().and_then(|it| Some((it, issuer(it)?))) else {
            return Self::default();
        };
        let is_due = |node: &&Node| {
            // What a release before this one does not say counts only while there is a rotation.
            let is_unknown = node.description.issuer.is_unknown();
            node.status.state == NodeState::Ready
                && (!is_unknown || cluster.root_rotation.is_some())
        };
        let due: Vec<&Node> = outstanding(view, issuer.clone()).filter(is_due).collect();
        let managers = due.iter().any(|node| node.role == NodeRole::Manager);
        let first = due.iter().filter(|node| !managers || node.role == NodeRole::Manager);
        let due = first.take(BATCH).map(|node| node.id.clone()).collect();
        Self { roots: cluster.roots(), issuer, due }
    }

    /// What a node is to be told, which says this of itself.
    pub fn tell(&self, node: &Node) -> Option<Trust> {
        if self.roots.is_empty() {
            return None;
        }
        let description = &node.description;
        let renews = self.due.contains(&node.id) && description.issuer != self.issuer;
        if !renews && description.trust_root == self.roots {
            return None;
        }
        Some(Trust { roots: self.roots.clone(), issuer: renews.then(|| self.issuer.clone()) })
    }
}

fn issuer(cluster: &Cluster) -> Option<Issuer> {
    ca::issuer(cluster.wanted_root()).ok()
}

/// Nodes that have no certificate by this issuer yet.
fn outstanding(view: &View, issuer: Issuer) -> impl Iterator<Item = &Node> {
    let nodes = view.nodes().map(AsRef::as_ref);
    nodes.filter(move |node: &&Node| !node.has_left() && node.description.issuer != issuer)
}

/// The nodes that a rotation waits for; `None`: there is no rotation.
pub fn waits_for(view: &View) -> Option<Vec<NodeId>> {
    let cluster = view.cluster().filter(|cluster| cluster.root_rotation.is_some())?;
    Some(outstanding(view, issuer(cluster)?).map(|node| node.id.clone()).collect())
}

/// The new root takes the old one's place, and so machines join with other tokens: nothing to do
/// while a node is waited for.
pub fn finished(view: &View) -> Result<Changes, Fault> {
    let mut tx = Tx::new(view);
    if waits_for(view).is_some_and(|nodes| nodes.is_empty()) {
        let mut new = Cluster::clone(&*cluster(view)?);
        if let Some(next) = new.root_rotation.take() {
            new.root_ca = RootCa { certificate: next.certificate, key: next.key };
        }
        let draw = || Ok::<_, Fault>(JoinToken::draw(&new.root_ca)?.render());
        new.tokens = JoinTokens { worker: draw()?, manager: draw()? };
        tx.put_cluster(new);
    }
    Ok(tx.finish())
}

/// Ends rotations until the token is cancelled.
pub(crate) async fn run(sequencer: Sequencer, token: CancellationToken) -> Result<(), Infallible> {
    let mut views = sequencer.watch();
    let mut said = None;
    loop {
        let waits = waits_for(&views.borrow_and_update().clone());
        if waits.as_ref().is_some_and(Vec::is_empty) {
            match sequencer.sequence_own(|view: &View, _| finished(view)).await {
                Ok(_version) => tracing::info!("the cluster has another root certificate"),
                Err(fault) => {
                    if !fault.is_not_leading() {
                        tracing::warn!(%fault, "cannot change the root certificate yet");
                    }
                    tokio::select! {
                        () = token.cancelled() => return Ok(()),
                        () = tokio::time::sleep(RETRY) => {}
                    }
                    continue;
                }
            }
        } else if let Some(nodes) = &waits
            && said != waits
        {
            tracing::info!(?nodes, "these nodes need certificates by the new root");
        }
        said = waits;
        tokio::select! {
            biased;
            () = token.cancelled() => return Ok(()),
            changed = views.changed() => if changed.is_err() {
                token.cancelled().await;
                return Ok(());
            },
        }
    }
}

#[cfg(test)]
mod tests;
