//! Who may call, and whose connections stay.

use crate::dispatch::report;
use crate::managers::Leading;
use ca::Peer;
use std::time::Duration;
use store::View;
use tonic::{Request, Status};
use types::{Fault, NodeId, Timestamp};
use wire::status_of;

/// What a caller without a certificate is told.
const STRANGER: &str = "this call needs a certificate of the cluster";
/// For a node that leaves to be answered.
const FAREWELL: Duration = Duration::from_secs(2);

/// Turns away whoever has no certificate before anything that they send is read.
pub(crate) fn known(request: Request<()>) -> Result<Request<()>, Status> {
    match ca::peer(&request) {
        Some(_) => Ok(request),
        None => Err(status_of(Fault::forbidden(STRANGER))),
    }
}

/// The node that calls: of this cluster, and not removed. What its certificate says of its role is for
/// `managers` alone.
fn authenticated<T>(request: &Request<T>, view: &View) -> Result<NodeId, Status> {
    let peer = ca::peer(request).ok_or_else(|| status_of(Fault::forbidden(STRANGER)))?;
    check(&peer, view).map_err(status_of)?;
    Ok(peer.node)
}

/// The node that calls the manager that leads; another manager is to be asked otherwise.
pub(crate) fn caller<T>(request: &Request<T>, leading: &Leading) -> Result<NodeId, Status> {
    leading.check().map_err(status_of)?;
    authenticated(request, &leading.log.view())
}

/// Says why a node may not call, though its certificate is good.
pub fn check(peer: &Peer, view: &View) -> Result<(), Fault> {
    let Some(cluster) = view.cluster() else {
        return Err(Fault::unavailable("this manager does not know the cluster yet"));
    };
    if cluster.id != peer.cluster {
        return Err(Fault::forbidden("the certificate is of another cluster"));
    }
    let id = &peer.node;
    let Some(node) = view.node(id) else {
        return Err(Fault::not_found(format!("node {id} not found")));
    };
    if node.has_left() {
        return Err(report::left_for_good(id));
    }
    Ok(())
}

/// Says whether the connections of a node stay. One that has just left still gets its answer.
pub(crate) fn may_stay(peer: &Peer, view: &View, now: Timestamp) -> bool {
    match view.node(&peer.node) {
        Some(node) if node.has_left() => now.since(node.status.since) < FAREWELL,
        Some(_) => check(peer, view).is_ok(),
        None => false,
    }
}
