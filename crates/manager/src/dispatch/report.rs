//! What nodes say of themselves and of their tasks, as changes to the store.

use crate::control::node::give_up_tasks;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use store::{Changes, Tx, View};
use types::{
    Fault, Node, NodeDescription, NodeId, NodeState, NodeStatus, Task, TaskId, TaskStatus, Writer,
};

/// A node opens a session.
pub(crate) fn registered(
    view: &View,
    id: &NodeId,
    description: NodeDescription,
    address: Ipv4Addr,
) -> Result<Changes, Fault> {
    let Some(node) = view.node(id) else {
        return Err(Fault::not_found(format!("node {id} not found")));
    };
    if has_left(node) {
        return Err(Fault::forbidden(format!(
            "node {id} has left the cluster: join it again with a token"
        )));
    }
    if address.is_unspecified() || address.is_multicast() || address.is_broadcast() {
        return Err(Fault::invalid(format!("{address} is no address that others can reach")));
    }
    let mut node = Node::clone(node);
    node.description = description;
    node.status = NodeStatus { state: NodeState::Ready, message: String::new(), address };
    let mut tx = Tx::new(view);
    tx.put_node(node);
    Ok(tx.finish())
}

/// What the status of a node says that left.
const LEFT: &str = "left";

/// Says whether a node has left for good: its certificate counts no more.
pub(crate) fn has_left(node: &Node) -> bool {
    node.status.state == NodeState::Down && node.status.message == LEFT
}

/// A node leaves for good.
pub(crate) fn left(view: &View, id: &NodeId) -> Result<Changes, Fault> {
    if view.node(id).is_none() {
        return Err(Fault::not_found(format!("node {id} not found")));
    }
    let mut tx = Tx::new(view);
    tx.edit_node(id, |node| {
        node.status.state = NodeState::Down;
        LEFT.clone_into(&mut node.status.message);
    });
    // Nobody will report on them any more, and nobody waits for them.
    give_up_tasks(&mut tx, view, id, "node left");
    Ok(tx.finish())
}

/// A node reports on its tasks. What it says of tasks of others, or too late, is ignored.
pub(crate) fn reported(
    view: &View,
    node: &NodeId,
    statuses: BTreeMap<TaskId, TaskStatus>,
) -> Changes {
    let mut tx = Tx::new(view);
    for (id, status) in statuses {
        let Some(task) = view.task(&id).filter(|task| task.node.as_ref() == Some(node)) else {
            continue;
        };
        if is_news(task, &status) {
            tx.edit_task(&id, |task| task.status = status);
        }
    }
    tx.finish()
}

fn is_news(task: &Task, status: &TaskStatus) -> bool {
    let before = task.status.state;
    // In the same state, the container or the message may become known later.
    let details = before == status.state
        && types::TaskState::Accepted <= before
        && task.status != *status
        && !before.is_terminal();
    details || before.may_become(status.state, Writer::Agent)
}

#[cfg(test)]
mod tests {
    use super::*;
    use types::{TaskState, Timestamp, Version};

    fn view(state: TaskState) -> View {
        let mut tx = Tx::new(&View::default());
        tx.put_node(Node { id: "n".into(), ..Node::default() });
        let mut task = Task { id: "t".into(), node: Some("n".into()), ..Task::default() };
        task.status.state = state;
        tx.put_task(task);
        let mut view = View::default();
        view.apply(&tx.finish(), Version(1), Timestamp(1));
        view
    }

    /// Says whether a report is taken.
    fn taken(from: TaskState, by: &str, to: TaskState) -> bool {
        let status = TaskStatus { state: to, message: "m".into(), ..TaskStatus::default() };
        !reported(&view(from), &by.into(), [("t".into(), status)].into()).is_empty()
    }

    #[test]
    fn a_node_reports_on_its_own_tasks_and_only_onwards() {
        assert!(taken(TaskState::Assigned, "n", TaskState::Running));
        assert!(taken(TaskState::Running, "n", TaskState::Running));
        assert!(!taken(TaskState::Assigned, "other", TaskState::Running));
        assert!(!taken(TaskState::Running, "n", TaskState::Starting));
        assert!(!taken(TaskState::Failed, "n", TaskState::Complete));
        assert!(!taken(TaskState::Orphaned, "n", TaskState::Running));
        assert!(!taken(TaskState::Pending, "n", TaskState::Running));
    }

    #[test]
    fn a_node_that_was_removed_cannot_register() {
        let address = [192, 168, 0, 1].into();
        let view = view(TaskState::Running);
        assert!(registered(&view, &"n".into(), NodeDescription::default(), address).is_ok());
        assert_eq!(
            registered(&view, &"gone".into(), NodeDescription::default(), address).unwrap_err(),
            Fault::not_found("node gone not found")
        );
        let nowhere = Ipv4Addr::UNSPECIFIED;
        assert!(registered(&view, &"n".into(), NodeDescription::default(), nowhere).is_err());
    }

    #[test]
    fn a_node_that_left_does_not_come_back_and_its_tasks_are_given_up() {
        let mut view = view(TaskState::Running);
        view.apply(&left(&view, &"n".into()).unwrap(), Version(2), Timestamp(2));
        assert_eq!(view.task(&"t".into()).unwrap().status.state, TaskState::Orphaned);
        let address = [192, 168, 0, 1].into();
        let back = registered(&view, &"n".into(), NodeDescription::default(), address);
        assert_eq!(
            back.unwrap_err(),
            Fault::forbidden("node n has left the cluster: join it again with a token")
        );
    }
}
