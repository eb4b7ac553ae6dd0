//! Certificates of nodes: by the root's key, or by an external CA that has it.

use crate::membership::cluster;
use ca::{External, Identity, Peer};
use std::sync::Arc;
use store::View;
use tokio::sync::Semaphore;
use types::{Cluster, Fault, NodeId, NodeRole, RootCa, Timestamp};
use wire::IssueReply;

/// The longest signing request.
const REQUEST_MAX: usize = 16 * 1024;
/// Certificates that are asked for at a time; who comes then comes again.
const TURNS: usize = 64;

/// Who signs, as this manager, which shows its own certificate where it asks an external CA.
#[derive(Clone, Debug)]
pub(crate) struct Signer {
    identity: Arc<Identity>,
    turns: Arc<Semaphore>,
}

impl Signer {
    pub(crate) fn new(identity: Arc<Identity>) -> Self {
        Self { identity, turns: Arc::new(Semaphore::new(TURNS)) }
    }

    /// Signs a node's request by the root that the cluster of this view wants.
    pub(crate) async fn sign(
        &self,
        view: &View,
        csr: &str,
        (node, role): (&NodeId, NodeRole),
        now: Timestamp,
    ) -> Result<IssueReply, Fault> {
        let cluster = cluster(view)?;
        if csr.len() > REQUEST_MAX {
            return Err(Fault::invalid("the certificate signing request is too long"));
        }
        let busy = |_| Fault::unavailable("too many nodes ask for certificates: try again");
        let _turn = self.turns.try_acquire().map_err(busy)?;
        let peer = Peer { node: node.clone(), role, cluster: cluster.id.clone() };
        let signed = ca::sign(&cluster, csr, &peer, Some(&self.identity), now).await;
        let certificate = signed.map_err(|error| match error {
            ca::Error::External(why) => {
                Fault::unavailable(format!("the certificate is not signed: {why}"))
            }
            error @ ca::Error::Request(_) => {
                Fault::invalid(format!("cannot sign the certificate: {}", types::chain(&error)))
            }
            error => {
                tracing::error!(error = types::chain(&error), "cannot sign a certificate");
                Fault::internal("cannot sign the certificate")
            }
        })?;
        Ok(IssueReply { node: peer.node, role, certificate, root: cluster.roots() })
    }

    /// Says why no external CA signs by the root that a cluster like this one wants: one is asked for a
    /// certificate that nobody gets.
    pub(crate) async fn check_external(
        &self,
        cluster: &Cluster,
        now: Timestamp,
    ) -> Result<(), String> {
        let why = |error: ca::Error| types::chain(&error);
        let external = External::of(cluster, Some(&self.identity)).map_err(why)?;
        let external = external.ok_or("none is given")?;
        let (node, role) = (self.identity.node_id(), NodeRole::Manager);
        let peer = Peer { node, role, cluster: cluster.id.clone() };
        let request = Identity::generate().map_err(why)?;
        external.sign(request.csr(), &peer, now).await.map(drop).map_err(why)
    }

    /// Has an external CA that signs by the cluster's root sign the next one; PEM.
    pub(crate) async fn cross_sign(
        &self,
        cluster: &Cluster,
        next: &RootCa,
    ) -> Result<String, Fault> {
        let external = External::of(cluster, Some(&self.identity))?.ok_or_else(|| {
            Fault::invalid(
                "must provide an external CA for the current external root CA to generate a \
                 cross-signed certificate",
            )
        })?;
        let signed = external.cross_sign(next).await;
        signed.map_err(|error| Fault::internal(format!("{CROSS_SIGNING}: {error}")))
    }
}

/// swarmkit's words.
pub(crate) const CROSS_SIGNING: &str =
    "unable to generate a cross-signed certificate for root rotation";
