//! Nodes.

use super::check_version;
use raft::Sequencer;
use std::sync::Arc;
use store::{Changes, Object, Tx, View};
use types::{
    Cluster, DesiredState, Fault, Node, NodeId, NodeRole, NodeSpec, NodeState, Task, TaskState,
    Timestamp, Version, Writer,
};

pub(crate) async fn update(
    sequencer: &Sequencer,
    id: NodeId,
    version: Version,
    spec: NodeSpec,
) -> Result<(), Fault> {
    sequencer.sequence(move |view: &View, _| with_updated(view, &id, version, spec)).await?;
    Ok(())
}

pub(crate) async fn remove(sequencer: &Sequencer, id: NodeId, force: bool) -> Result<(), Fault> {
    sequencer.sequence(move |view: &View, now| without(view, &id, (force, now))).await?;
    Ok(())
}

/// A node that is changed, if it is still at `version`.
pub fn with_updated(
    view: &View,
    id: &NodeId,
    version: Version,
    spec: NodeSpec,
) -> Result<Changes, Fault> {
    let mut node = Node::clone(node(view, id)?);
    check_version(&node.meta, version)?;
    check_role(view, &node, spec.role)?;
    node.spec = spec;
    if node.spec.role == NodeRole::Manager {
        // It may ask for a manager's certificate now; a worker it is only once it is out of the log.
        node.role = NodeRole::Manager;
    }
    let mut tx = Tx::new(view);
    tx.put_node(node);
    Ok(tx.finish())
}

/// Somebody has to decide.
fn check_role(view: &View, node: &Node, role: NodeRole) -> Result<(), Fault> {
    match (node.spec.role, role) {
        (NodeRole::Worker, NodeRole::Manager) => return store::readers::may_manage(view, node),
        (NodeRole::Manager, NodeRole::Worker) => {}
        (NodeRole::Worker, NodeRole::Worker) | (NodeRole::Manager, NodeRole::Manager) => {
            return Ok(());
        }
    }
    let is_other = |other: &&Arc<Node>| {
        other.id != node.id && other.spec.role == NodeRole::Manager && other.manager.is_some()
    };
    if view.nodes().any(|other| is_other(&other)) {
        return Ok(());
    }
    Err(last_manager())
}

/// Docker's words.
pub(crate) fn last_manager() -> Fault {
    Fault::invalid("attempting to demote the last manager of the swarm")
}

/// A node that the user wants to be something else.
pub fn with_role(view: &View, id: &NodeId, role: NodeRole) -> Result<Changes, Fault> {
    let node = node(view, id)?;
    let spec = NodeSpec { role, ..node.spec.clone() };
    with_updated(view, id, node.meta.version, spec)
}

/// A manager that is out of the log is a worker.
pub fn demoted(view: &View, id: &NodeId) -> Result<Changes, Fault> {
    let mut tx = Tx::new(view);
    if node(view, id)?.spec.role == NodeRole::Worker {
        tx.edit_node(id, |node| {
            node.role = NodeRole::Worker;
            node.manager = None;
        });
    }
    Ok(tx.finish())
}

/// A node that is forgotten, with all that was on it.
pub fn without(
    view: &View,
    id: &NodeId,
    (force, now): (bool, Timestamp),
) -> Result<Changes, Fault> {
    let node = node(view, id)?;
    match node.role {
        NodeRole::Manager => {
            return Err(Fault::invalid(format!(
                "node {id} is a cluster manager and is a member of the raft cluster. It must be \
                 demoted to worker before removal"
            )));
        }
        NodeRole::Worker => {}
    }
    let is_there = match node.status.state {
        // One that is unknown has joined and never opened a session.
        NodeState::Down | NodeState::Unknown => false,
        NodeState::Ready | NodeState::Disconnected => true,
    };
    if is_there && !force {
        return Err(Fault::invalid(format!("node {id} is not down and can't be removed")));
    }
    let mut tx = Tx::new(view);
    give_up_tasks(&mut tx, id, ("node was removed", now));
    tx.remove_node(id);
    if let Some(cluster) = view.cluster() {
        let mut cluster = Cluster::clone(cluster);
        cluster.note_removed(id.clone(), now);
        // As long as a manager would not read it, and drop it, all is as in its release.
        let cluster = Arc::new(cluster);
        if store::readers::all_read(view, &Object::Cluster(Arc::clone(&cluster))) {
            tx.put_cluster(Arc::unwrap_or_clone(cluster));
        }
    }
    Ok(tx.finish())
}

/// Says whether there are tasks of a node that could be given up.
pub(crate) fn has_tasks(view: &View, node: &NodeId) -> bool {
    view.tasks_of_node(node).any(|task| may_be_given_up(task))
}

fn may_be_given_up(task: &Task) -> bool {
    task.status.state.may_become(TaskState::Orphaned, Writer::Dispatcher)
}

/// Nobody will report on the tasks of this node any more.
pub(crate) fn give_up_tasks(tx: &mut Tx, node: &NodeId, (why, now): (&str, Timestamp)) {
    let tasks = tx.tasks_of_node(node).filter(|task| may_be_given_up(task));
    for id in tasks.map(|task| task.id.clone()).collect::<Vec<_>>() {
        tx.edit_task(&id, |task| {
            task.status.state = TaskState::Orphaned;
            task.status.since = now;
            why.clone_into(&mut task.status.message);
            task.desired = task.desired.max(DesiredState::Shutdown);
        });
    }
}

fn node<'a>(view: &'a View, id: &NodeId) -> Result<&'a Node, Fault> {
    let node = view.node(id).map(AsRef::as_ref);
    node.ok_or_else(|| Fault::not_found(format!("node {id} not found")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use types::{Availability, ManagerStatus, NodeStatus};

    const NOW: Timestamp = Timestamp(2);

    fn view(state: NodeState, role: NodeRole) -> View {
        let mut tx = Tx::new(&View::default());
        let status = NodeStatus { state, ..NodeStatus::default() };
        let spec = NodeSpec { role, ..NodeSpec::default() };
        tx.put_node(Node { id: "n".into(), status, role, spec, ..Node::default() });
        let mut task = Task { id: "t".into(), node: Some("n".into()), ..Task::default() };
        task.status.state = TaskState::Running;
        tx.put_task(task);
        let mut view = View::default();
        view.apply(&tx.finish(), Version(1), Timestamp(1));
        view
    }

    #[test]
    fn a_node_is_removed_when_it_is_down_or_by_force_and_never_a_manager() {
        let id = NodeId::from("n");
        let up = view(NodeState::Ready, NodeRole::Worker);
        assert_eq!(
            without(&up, &id, (false, NOW)).unwrap_err(),
            Fault::invalid("node n is not down and can't be removed")
        );
        assert!(without(&up, &id, (true, NOW)).is_ok());
        assert!(without(&view(NodeState::Down, NodeRole::Worker), &id, (false, NOW)).is_ok());
        assert!(without(&view(NodeState::Unknown, NodeRole::Worker), &id, (false, NOW)).is_ok());
        assert!(without(&view(NodeState::Down, NodeRole::Manager), &id, (true, NOW)).is_err());
    }

    /// The release before would drop the note with its next change of the cluster.
    #[test]
    fn a_removed_node_is_noted_once_all_managers_can_read_it() {
        for (log_format, noted) in [(0, 0), (store::Format::PRESENT.0, 1)] {
            let mut view = view(NodeState::Down, NodeRole::Worker);
            let mut tx = Tx::new(&view);
            tx.put_cluster(Cluster::default());
            let mut manager =
                Node { id: "m".into(), manager: Some(ManagerStatus::default()), ..Node::default() };
            manager.description.log_format = log_format;
            tx.put_node(manager);
            view.apply(&tx.finish(), Version(2), NOW);
            let changes = without(&view, &"n".into(), (false, NOW)).unwrap();
            let after = store::rules::admit(&view, &changes, Version(3), NOW).unwrap();
            assert!(after.node(&"n".into()).is_none());
            assert_eq!(after.cluster().unwrap().removed.len(), noted, "{log_format}");
        }
    }

    #[test]
    fn tasks_of_a_removed_node_are_given_up() {
        let mut view = view(NodeState::Down, NodeRole::Worker);
        let changes = without(&view, &"n".into(), (false, NOW)).unwrap();
        view.apply(&changes, Version(2), Timestamp(2));
        let task = view.task(&"t".into()).unwrap();
        assert_eq!(
            (task.status.state, task.status.since, task.desired),
            (TaskState::Orphaned, NOW, DesiredState::Shutdown)
        );
    }

    #[test]
    fn availability_and_role_can_be_changed_but_the_last_manager_stays() {
        let mut view = view(NodeState::Ready, NodeRole::Worker);
        let drain = NodeSpec { availability: Availability::Drain, ..NodeSpec::default() };
        assert!(with_updated(&view, &"n".into(), Version(1), drain).is_ok());
        let promoted = with_role(&view, &"n".into(), NodeRole::Manager).unwrap();
        view.apply(&promoted, Version(2), NOW);
        assert_eq!(view.node(&"n".into()).unwrap().role, NodeRole::Manager);
        let fault = with_role(&view, &"n".into(), NodeRole::Worker).unwrap_err();
        assert_eq!(fault.message, "attempting to demote the last manager of the swarm");
    }
}
