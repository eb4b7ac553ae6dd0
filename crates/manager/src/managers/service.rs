//! What managers ask of each other.
//!
//! Only managers are heard: by their certificate before anything they send is read, and by the store,
//! which knows who is none any more.

use super::Route;
use crate::find;
use crate::logs::LogStream;
use ca::{Identity, Peer};
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use std::sync::Arc;
use store::View;
use tonic::{Request, Response, Status};
use types::{ClusterId, Fault, NodeRole};
use wire::{
    BarrierReply, BarrierRequest, LogItem, LogsRequest, Managers, OrderReply, OrderRequest,
    RaftMessage, status_of,
};

const WORKER: &str = "this call needs a manager's certificate";

#[derive(Clone, Debug)]
pub(crate) struct Service {
    pub(crate) identity: Arc<Identity>,
    pub(crate) route: Arc<Route>,
}

/// Turns away whoever has no manager's certificate before anything that they send is read.
pub(crate) fn managers_only(request: Request<()>) -> Result<Request<()>, Status> {
    match ca::peer(&request) {
        Some(Peer { role: NodeRole::Manager, .. }) => Ok(request),
        Some(Peer { role: NodeRole::Worker, .. }) | None => {
            Err(status_of(Fault::forbidden(WORKER)))
        }
    }
}

/// Says why this caller is no manager, on the one that leads: its view is the newest.
fn check(peer: &Peer, view: &View, cluster: &ClusterId) -> Result<(), Fault> {
    check_cluster(peer, cluster)?;
    let node = view.node(&peer.node);
    if node.is_some_and(|node| node.role == NodeRole::Manager && !node.has_left()) {
        return Ok(());
    }
    Err(Fault::forbidden(format!("node {} is no manager of this cluster", peer.node)))
}

/// Says why this caller is not the member of the log that it says it is. Whoever came later than what
/// is known here must be heard: it may lead, and only it tells the rest. Nobody comes back who has
/// left or was removed, nor who was given up with the others when one manager went on alone.
fn check_member(
    peer: &Peer,
    (from, generation): (u64, u64),
    view: &View,
    cluster: &ClusterId,
) -> Result<(), Fault> {
    check_cluster(peer, cluster)?;
    let known = view.cluster();
    if known.is_some_and(|known| generation < known.generation) {
        return Err(Fault::forbidden(format!(
            "manager {from} was given up when another one went on alone"
        )));
    }
    let has_gone = known.is_some_and(|known| known.removed.contains_key(&peer.node))
        || view.node(&peer.node).is_some_and(|node| node.has_left());
    let is_it = match find::manager(view, from) {
        Some(node) => node.id == peer.node,
        None => known.map_or(0, |known| known.last_raft_id) < from,
    };
    if is_it && !has_gone {
        return Ok(());
    }
    Err(Fault::forbidden(format!("node {} is not manager {from} of the cluster's log", peer.node)))
}

fn check_cluster(peer: &Peer, cluster: &ClusterId) -> Result<(), Fault> {
    if peer.role == NodeRole::Manager && peer.cluster == *cluster {
        return Ok(());
    }
    Err(Fault::forbidden(WORKER))
}

impl Service {
    fn caller<T>(&self, request: &Request<T>) -> Result<(), Status> {
        self.route.leading.check().map_err(status_of)?;
        let peer = ca::peer(request).ok_or_else(|| status_of(Fault::forbidden(WORKER)))?;
        check(&peer, &self.route.leading.log.view(), &self.identity.cluster()).map_err(status_of)
    }
}

#[tonic::async_trait]
impl Managers for Service {
    async fn raft(&self, request: Request<RaftMessage>) -> Result<Response<RaftMessage>, Status> {
        let peer = ca::peer(&request).ok_or_else(|| status_of(Fault::forbidden(WORKER)))?;
        let RaftMessage { from, generation, body } = request.into_inner();
        let sequencer = &self.route.leading.log;
        let (view, cluster) = (sequencer.view(), self.identity.cluster());
        check_member(&peer, (from, generation), &view, &cluster).map_err(status_of)?;
        let body = sequencer.receive(from, &body).await.map_err(status_of)?;
        Ok(Response::new(RaftMessage { from: sequencer.member(), body, ..RaftMessage::default() }))
    }

    async fn order(&self, request: Request<OrderRequest>) -> Result<Response<OrderReply>, Status> {
        self.caller(&request)?;
        let order = request.into_inner().order;
        self.route.orders.carry_out(order).await.map(Response::new).map_err(status_of)
    }

    async fn barrier(
        &self,
        request: Request<BarrierRequest>,
    ) -> Result<Response<BarrierReply>, Status> {
        self.caller(&request)?;
        self.route.barrier().await.map(Response::new).map_err(status_of)
    }

    type LogsStream = BoxStream<'static, Result<LogItem, Status>>;

    async fn logs(
        &self,
        request: Request<LogsRequest>,
    ) -> Result<Response<Self::LogsStream>, Status> {
        self.caller(&request)?;
        let LogsRequest { selector, options, .. } = request.into_inner();
        let lines: LogStream = self.route.logs(selector, options).await.map_err(status_of)?;
        Ok(Response::new(lines.map(|line| Ok(LogItem(line))).boxed()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use store::Tx;
    use types::{Cluster, ManagerStatus, Node, NodeSpec, NodeState, Timestamp, Version};

    fn peer(node: &str, role: NodeRole, cluster: &str) -> Peer {
        Peer { node: node.into(), role, cluster: cluster.into() }
    }

    /// Numbers up to 3 were given: 1 is m1's, 2 nobody's any more, 3 is m3's; w was a manager once.
    fn view() -> View {
        let mut tx = Tx::new(&View::default());
        tx.put_cluster(Cluster { id: "c".into(), last_raft_id: 3, ..Cluster::default() });
        for (id, raft_id) in [("m1", 1), ("m3", 3)] {
            let manager = Some(ManagerStatus { raft_id, address: "m:1".to_owned() });
            let (role, spec) = (NodeRole::Manager, NodeSpec::default());
            tx.put_node(Node { id: id.into(), role, spec, manager, ..Node::default() });
        }
        tx.put_node(Node { id: "w".into(), ..Node::default() });
        let mut view = View::default();
        view.apply(&tx.finish(), Version(1), Timestamp(1));
        view
    }

    fn hears(view: &View, node: &str, said: (u64, u64)) -> bool {
        check_member(&peer(node, NodeRole::Manager, "c"), said, view, &"c".into()).is_ok()
    }

    #[test]
    fn a_member_of_the_log_is_who_it_says_and_one_that_came_later_is_heard() {
        let hears = |node: &str, from| hears(&view(), node, (from, 0));
        assert!(hears("m1", 1) && hears("m3", 3));
        assert!(!hears("m1", 3), "another one's number");
        assert!(!hears("w", 2), "a number that nobody has any more");
        assert!(hears("m4", 4), "it is not known here yet");
        assert!(hears("w", 4), "a worker that was promoted since may lead");
        let empty = View::default();
        let any = peer("m7", NodeRole::Manager, "c");
        assert!(check_member(&any, (7, 0), &empty, &"c".into()).is_ok(), "a log that is new here");
        let foreign = peer("m1", NodeRole::Manager, "other");
        assert!(check_member(&foreign, (1, 0), &view(), &"c".into()).is_err());
        let worker = peer("m1", NodeRole::Worker, "c");
        assert!(check_member(&worker, (1, 0), &view(), &"c".into()).is_err());
    }

    #[test]
    fn nobody_comes_back_who_has_gone_or_was_given_up_whatever_number_it_says() {
        let mut view = view();
        let mut tx = Tx::new(&view);
        let mut cluster = Cluster::clone(view.cluster().unwrap());
        cluster.generation = 1;
        cluster.note_removed("removed".into(), Timestamp(1));
        tx.put_cluster(cluster);
        tx.edit_node(&"w".into(), |node| {
            node.status.enter(NodeState::Down, Node::LEFT, Timestamp(1));
        });
        view.apply(&tx.finish(), Version(2), Timestamp(2));
        for (node, said, is_heard) in [
            ("m1", (1, 1), true),
            ("m4", (4, 1), true),
            ("m1", (1, 2), true),
            ("removed", (4, 1), false),
            ("w", (4, 1), false),
            // When one manager went on alone it did not know of these.
            ("m4", (4, 0), false),
            ("m1", (1, 0), false),
        ] {
            assert_eq!(hears(&view, node, said), is_heard, "{node} {said:?}");
        }
    }

    #[test]
    fn only_managers_pass_on_what_users_ask() {
        let may =
            |node: &str| check(&peer(node, NodeRole::Manager, "c"), &view(), &"c".into()).is_ok();
        assert!(may("m1") && !may("w") && !may("nobody"));
    }
}
