//! A cluster goes on with one manager: the others are lost for good.

use raft::Sequencer;
use std::net::IpAddr;
use store::{Changes, Tx, View};
use types::{
    Availability, Cluster, Fault, ManagerStatus, Node, NodeDescription, NodeId, NodeRole, NodeSpec,
    NodeState, NodeStatus, Timestamp, Version,
};

/// The manager that is left.
#[derive(Clone, Debug)]
pub struct Survivor {
    pub node: NodeId,
    pub manager: ManagerStatus,
    pub description: NodeDescription,
    pub address: IpAddr,
    /// Its VXLAN end point, where that is another address.
    pub data_path_address: Option<IpAddr>,
}

/// Writes that the others are no managers any more, before anybody can call this one: from then on
/// they are not heard, whatever they think that they are.
pub async fn go_on_alone(sequencer: &Sequencer, survivor: Survivor) -> Result<Version, Fault> {
    sequencer.sequence(move |view, now| alone(view, &survivor, now)).await
}

/// All stays but who manages. One that lives becomes a worker when it hears of it; the tasks of one
/// that does not are placed anew once it is down.
pub fn alone(view: &View, survivor: &Survivor, now: Timestamp) -> Result<Changes, Fault> {
    let missing = || Fault::unavailable("there is no cluster in this manager's log");
    let cluster = view.cluster().ok_or_else(missing)?;
    let mut tx = Tx::new(view);
    let last_raft_id = cluster.last_raft_id.max(survivor.manager.raft_id);
    // What the others know of numbers that were given later is nothing to this one.
    let generation = cluster.generation + 1;
    tx.put_cluster(Cluster { last_raft_id, generation, ..Cluster::clone(cluster) });
    let is_manager = |node: &Node| {
        let roles = [node.role, node.spec.role];
        node.manager.is_some() || roles.contains(&NodeRole::Manager)
    };
    for node in view.nodes().filter(|node| node.id != survivor.node && is_manager(node)) {
        tx.edit_node(&node.id, |node| {
            (node.role, node.spec.role, node.manager) = (NodeRole::Worker, NodeRole::Worker, None);
        });
    }
    let node = view.node(&survivor.node).map(|node| Node::clone(node));
    let mut node = node.unwrap_or_else(|| new_node(survivor, now));
    (node.role, node.spec.role) = (NodeRole::Manager, NodeRole::Manager);
    node.manager = Some(survivor.manager.clone());
    // It may have been updated while there was nobody to tell.
    node.description.log_format = survivor.description.log_format;
    node.status.address = survivor.address;
    node.status.data_path_address = survivor.data_path_address;
    tx.put_node(node);
    Ok(tx.finish())
}

fn new_node(survivor: &Survivor, now: Timestamp) -> Node {
    Node {
        id: survivor.node.clone(),
        spec: NodeSpec { availability: Availability::Active, ..NodeSpec::default() },
        description: survivor.description.clone(),
        status: NodeStatus { state: NodeState::Ready, since: now, ..NodeStatus::default() },
        ..Node::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(id: &str, role: NodeRole, raft_id: Option<u64>) -> Node {
        let address = format!("{id}:2377");
        let manager = raft_id.map(|raft_id| ManagerStatus { raft_id, address });
        let spec = NodeSpec { role, ..NodeSpec::default() };
        Node { id: id.into(), role, spec, manager, ..Node::default() }
    }

    fn view() -> View {
        let mut tx = Tx::new(&View::default());
        tx.put_cluster(Cluster { id: "c".into(), last_raft_id: 4, ..Cluster::default() });
        tx.put_node(node("m1", NodeRole::Manager, Some(1)));
        tx.put_node(node("m3", NodeRole::Manager, Some(3)));
        tx.put_node(node("m4", NodeRole::Manager, None));
        tx.put_node(node("w", NodeRole::Worker, None));
        let mut view = View::default();
        view.apply(&tx.finish(), Version(1), Timestamp(1));
        view
    }

    fn after(node: &str, raft_id: u64) -> View {
        let survivor = Survivor {
            node: node.into(),
            manager: ManagerStatus { raft_id, address: "new:2377".to_owned() },
            description: NodeDescription::default(),
            address: [10, 0, 0, 9].into(),
            data_path_address: None,
        };
        let mut view = view();
        let changes = alone(&view, &survivor, Timestamp(2)).unwrap();
        view.apply(&changes, Version(2), Timestamp(2));
        view
    }

    fn managers(view: &View) -> Vec<(&str, u64)> {
        let all = view.nodes().filter(|node| node.role == NodeRole::Manager);
        all.map(|node| (node.id.as_str(), node.manager.as_ref().unwrap().raft_id)).collect()
    }

    #[test]
    fn the_one_that_is_left_manages_alone_at_its_new_address() {
        let view = after("m3", 3);
        assert_eq!(managers(&view), [("m3", 3)]);
        let own = view.node(&"m3".into()).unwrap();
        assert_eq!(own.manager.as_ref().unwrap().address, "new:2377");
        assert_eq!(own.status.address, IpAddr::from([10, 0, 0, 9]));
        assert!(view.nodes().all(|node| node.spec.role == node.role));
        let cluster = view.cluster().unwrap();
        assert_eq!((view.nodes().len(), cluster.last_raft_id, cluster.generation), (4, 4, 1));
    }

    #[test]
    fn a_machine_that_was_no_node_before_manages_alone() {
        let view = after("new", 5);
        assert_eq!(managers(&view), [("new", 5)]);
        assert_eq!((view.nodes().len(), view.cluster().unwrap().last_raft_id), (5, 5));
        assert_eq!(view.node(&"new".into()).unwrap().status.state, NodeState::Ready);
    }

    /// It was updated while it was lost, so nobody was told; what the others read is nothing any more.
    #[test]
    fn who_goes_on_alone_may_write_what_it_reads_itself() {
        let description =
            NodeDescription { log_format: store::Format::PRESENT.0, ..Default::default() };
        let survivor = Survivor {
            node: "m3".into(),
            manager: ManagerStatus { raft_id: 3, address: "new:2377".to_owned() },
            description,
            address: [10, 0, 0, 9].into(),
            data_path_address: None,
        };
        let changes = alone(&view(), &survivor, Timestamp(2)).unwrap();
        let after = store::rules::admit(&view(), &changes, Version(2), Timestamp(2)).unwrap();
        assert_eq!(after.cluster().unwrap().generation, 1);
    }
}
