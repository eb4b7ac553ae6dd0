//! What nodes say of themselves and of their tasks, as changes to the store.

use crate::control::node::give_up_tasks;
use std::net::IpAddr;
use store::{Changes, Tx, View};
use types::{Fault, Node, NodeId, NodeState, Task, TaskState, TaskStatus, Timestamp, Writer};
use wire::{Report, SessionRequest};

/// Bytes of what a node says of itself.
const DESCRIPTION_MAX: usize = 64 << 10;

/// A node opens a session.
pub fn registered(
    view: &View,
    id: &NodeId,
    request: &SessionRequest,
    now: Timestamp,
) -> Result<Changes, Fault> {
    let Some(node) = view.node(id) else {
        return Err(Fault::not_found(format!("node {id} not found")));
    };
    if node.has_left() {
        return Err(left_for_good(id));
    }
    let SessionRequest { description, address, data_path_address, leaving, .. } = request;
    for address in [Some(address), data_path_address.as_ref()].into_iter().flatten() {
        if address.is_unspecified() || address.is_multicast() || is_broadcast(*address) {
            return Err(Fault::invalid(format!("{address} is no address that others can reach")));
        }
    }
    let size = wire::encode(description).map_or(usize::MAX, |bytes| bytes.len());
    if size > DESCRIPTION_MAX {
        let fault = format!("a node's description has {size} bytes, at most {DESCRIPTION_MAX} fit");
        return Err(Fault::invalid(fault));
    }
    let mut node = Node::clone(node);
    node.description = description.clone();
    node.status.address = *address;
    node.status.data_path_address = *data_path_address;
    node.status.enter(NodeState::Ready, "", now);
    // One that leaves says so in every session; whoever comes back from a leave that was not carried
    // through is there for tasks again.
    node.status.leaving = *leaving;
    let mut tx = Tx::new(view);
    tx.put_node(node);
    Ok(tx.finish())
}

fn is_broadcast(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_broadcast(),
        IpAddr::V6(_) => false,
    }
}

/// What a node is told that left.
pub(crate) fn left_for_good(id: &NodeId) -> Fault {
    Fault::forbidden(format!("node {id} has left the cluster: join it again with a token"))
}

/// A node is refused: users see why.
pub(crate) fn refused(view: &View, id: &NodeId, why: String) -> Changes {
    let mut tx = Tx::new(view);
    note_trouble(&mut tx, id, why);
    tx.finish()
}

fn note_trouble(tx: &mut Tx, id: &NodeId, trouble: String) {
    if let Some(mut node) = tx.node(id).map(|node| Node::clone(node))
        && node.note_trouble(trouble)
    {
        tx.put_node(node);
    }
}

/// A node is about to leave: its tasks go in order, as from one that is drained.
pub fn leaves(view: &View, id: &NodeId) -> Result<Changes, Fault> {
    if view.node(id).is_none() {
        return Err(Fault::not_found(format!("node {id} not found")));
    }
    let mut tx = Tx::new(view);
    tx.edit_node(id, |node| node.status.leaving = true);
    Ok(tx.finish())
}

/// A node leaves for good.
pub fn left(view: &View, id: &NodeId, now: Timestamp) -> Result<Changes, Fault> {
    if view.node(id).is_none() {
        return Err(Fault::not_found(format!("node {id} not found")));
    }
    let mut tx = Tx::new(view);
    tx.edit_node(id, |node| node.status.enter(NodeState::Down, Node::LEFT, now));
    // Nobody will report on them any more, and nobody waits for them.
    give_up_tasks(&mut tx, id, ("node left", now));
    Ok(tx.finish())
}

/// A node reports on its tasks and on itself. What it says of tasks of others, or too late, is
/// ignored.
pub fn reported(
    view: &View,
    node: &NodeId,
    Report { statuses, sent_at, trouble, .. }: Report,
    now: Timestamp,
) -> Changes {
    let mut tx = Tx::new(view);
    if let Some(trouble) = trouble {
        note_trouble(&mut tx, node, trouble);
    }
    for (id, status) in statuses {
        let Some(task) = view.task(&id).filter(|task| task.node.as_ref() == Some(node)) else {
            continue;
        };
        let since = entered_at(task, &status, sent_at, now);
        let status = TaskStatus { since, ..status.limited() };
        if is_news(task, &status) {
            tx.edit_task(&id, |task| {
                if status.state == TaskState::Running {
                    task.running_since.get_or_insert(since);
                }
                task.status = status;
            });
        }
    }
    tx.finish()
}

/// When a task entered the state that its node reports, in the cluster's time: the node's clock
/// says only how long ago that was, and states follow each other.
fn entered_at(task: &Task, status: &TaskStatus, sent_at: Timestamp, now: Timestamp) -> Timestamp {
    let before = task.status.since;
    if status.state == task.status.state {
        return before;
    }
    now.before(sent_at.since(status.since)).max(before).min(now)
}

fn is_news(task: &Task, status: &TaskStatus) -> bool {
    let before = task.status.state;
    // In the same state, the container or the message may become known later.
    let details = before == status.state
        && TaskState::Accepted <= before
        && task.status != *status
        && !before.is_terminal();
    details || before.may_become(status.state, Writer::Agent)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;
    use types::{EngineInfo, NodeDescription, TaskId, Version};

    const SECOND: i64 = 1_000_000_000;
    const NOW: Timestamp = Timestamp(1_000 * SECOND);

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
        !reported(&view(from), &by.into(), report(status, NOW), NOW).is_empty()
    }

    fn report(status: TaskStatus, sent_at: Timestamp) -> Report {
        let statuses = [(TaskId::from("t"), status)].into();
        Report { statuses, sent_at, ..Report::default() }
    }

    fn says(address: IpAddr) -> SessionRequest {
        let description = NodeDescription::default();
        SessionRequest { description, address, ..SessionRequest::default() }
    }

    /// What is kept of a report that a running task has ended; the node's clock is off by `skew`.
    fn ended(skew: i64, age: i64) -> TaskStatus {
        let mut view = view(TaskState::Running);
        let mut tx = Tx::new(&view);
        tx.edit_task(&"t".into(), |task| task.status.since = Timestamp(NOW.0 - 60 * SECOND));
        view.apply(&tx.finish(), Version(2), NOW);
        let sent_at = Timestamp(NOW.0 + skew);
        let status = TaskStatus {
            state: TaskState::Failed,
            since: Timestamp(sent_at.0 - age),
            error: "e".repeat(100_000),
            ..TaskStatus::default()
        };
        let changes = reported(&view, &"n".into(), report(status, sent_at), NOW);
        view.apply(&changes, Version(3), NOW);
        view.task(&"t".into()).unwrap().status.clone()
    }

    #[test]
    fn what_a_node_reports_is_in_the_clusters_time_whatever_its_clock_says() {
        let hour = 3_600 * SECOND;
        for skew in [0, hour, -hour, i64::MAX / 2] {
            assert_eq!(ended(skew, 7 * SECOND).since, Timestamp(NOW.0 - 7 * SECOND), "{skew}");
        }
        // Its clock was set between the two: no earlier than the state before, no later than now.
        assert_eq!(ended(0, hour).since, Timestamp(NOW.0 - 60 * SECOND));
        assert_eq!(ended(0, -hour).since, NOW);
    }

    #[test]
    fn what_a_node_may_fill_is_limited() {
        assert!(ended(0, 0).error.len() <= 1024);
        let view = view(TaskState::Running);
        let mut request = says([192, 168, 0, 1].into());
        let labels = (0..10_000).map(|label| (format!("label-{label}"), "value".to_owned()));
        request.description.engine =
            EngineInfo { labels: labels.collect(), ..EngineInfo::default() };
        let fault = registered(&view, &"n".into(), &request, NOW).unwrap_err();
        assert!(fault.message.contains("at most 65536"), "{fault}");
    }

    #[test]
    fn what_does_not_work_on_a_node_is_kept_until_it_says_otherwise() {
        let mut view = view(TaskState::Running);
        let mut report = |trouble: Option<&str>| {
            let trouble = trouble.map(str::to_owned);
            let changes =
                reported(&view, &"n".into(), Report { trouble, ..Report::default() }, NOW);
            view.apply(&changes, Version(2), NOW);
            (view.node(&"n".into()).unwrap().trouble.clone(), !changes.is_empty())
        };
        assert_eq!(report(Some("port 80/tcp is in use")), ("port 80/tcp is in use".into(), true));
        // Another session, or a report of tasks alone, changes nothing.
        assert_eq!(report(Some("port 80/tcp is in use")), ("port 80/tcp is in use".into(), false));
        assert_eq!(report(None), ("port 80/tcp is in use".into(), false));
        assert!(report(Some(&"e".repeat(100_000))).0.len() <= 1024);
        assert_eq!(report(Some("")), (String::new(), true));
    }

    #[test]
    fn a_node_that_was_ready_before_keeps_its_beginning() {
        let mut view = view(TaskState::Running);
        let request = says([192, 168, 0, 1].into());
        for (version, now) in [(2, NOW), (3, NOW.after(std::time::Duration::from_secs(9)))] {
            let changes = registered(&view, &"n".into(), &request, now).unwrap();
            view.apply(&changes, Version(version), now);
            let status = &view.node(&"n".into()).unwrap().status;
            assert_eq!((status.state, status.since), (NodeState::Ready, NOW));
        }
    }

    #[test]
    fn a_node_whose_leave_was_not_carried_through_is_there_again() {
        let mut view = view(TaskState::Running);
        let request = says([192, 168, 0, 1].into());
        view.apply(&registered(&view, &"n".into(), &request, NOW).unwrap(), Version(2), NOW);
        view.apply(&leaves(&view, &"n".into()).unwrap(), Version(3), NOW);
        assert!(view.node(&"n".into()).unwrap().status.leaving);
        let leaves = SessionRequest { leaving: true, ..request.clone() };
        view.apply(&registered(&view, &"n".into(), &leaves, NOW).unwrap(), Version(4), NOW);
        assert!(view.node(&"n".into()).unwrap().status.leaving, "its connection broke meanwhile");
        view.apply(&registered(&view, &"n".into(), &request, NOW).unwrap(), Version(5), NOW);
        assert!(!view.node(&"n".into()).unwrap().status.leaving);
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
        let mut request = says([192, 168, 0, 1].into());
        let view = view(TaskState::Running);
        assert!(registered(&view, &"n".into(), &request, NOW).is_ok());
        assert_eq!(
            registered(&view, &"gone".into(), &request, NOW).unwrap_err(),
            Fault::not_found("node gone not found")
        );
        request.data_path_address = Some([224, 0, 0, 1].into());
        assert!(registered(&view, &"n".into(), &request, NOW).is_err());
        let nowhere = says(Ipv4Addr::UNSPECIFIED.into());
        assert!(registered(&view, &"n".into(), &nowhere, NOW).is_err());
    }

    #[test]
    fn a_node_that_left_does_not_come_back_and_its_tasks_are_given_up() {
        let mut view = view(TaskState::Running);
        view.apply(&left(&view, &"n".into(), NOW).unwrap(), Version(2), Timestamp(2));
        assert_eq!(view.task(&"t".into()).unwrap().status.state, TaskState::Orphaned);
        let back = registered(&view, &"n".into(), &says([192, 168, 0, 1].into()), NOW);
        assert_eq!(
            back.unwrap_err(),
            Fault::forbidden("node n has left the cluster: join it again with a token")
        );
    }
}
