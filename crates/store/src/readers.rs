//! What all managers read: nothing is written that one of them would not understand.
//!
//! A cluster is updated one manager after the other, and may be rolled back as long as nothing is
//! stored that the release before does not know. Each node says which format its release reads; the
//! first object of a later format is refused while a manager reads it not. From then on the log is
//! written in that format, and no node becomes a manager that does not read it.

use crate::{Changes, Format, View};
use types::{Fault, Node};

/// Refuses changes that are the first of their format, where a manager does not read it.
pub(crate) fn check(before: &View, changes: &Changes) -> Result<(), Fault> {
    check_format(before, changes.format(before))
}

fn check_format(before: &View, needed: Format) -> Result<(), Fault> {
    if needed <= before.format() {
        return Ok(());
    }
    let managers = before.nodes().filter(|node| node.manager.is_some());
    let old: Vec<&str> =
        managers.filter(|node| reads(node) < needed).map(|node| name(node)).collect();
    if old.is_empty() {
        return Ok(());
    }
    let text = format!(
        "not before all managers run a release that can read it: update {} first",
        old.join(", ")
    );
    Err(Fault::unavailable(text))
}

/// Refuses a node as a manager that would not understand what is stored.
pub fn may_manage(view: &View, node: &Node) -> Result<(), Fault> {
    check_reads(view.format(), node)
}

fn check_reads(format: Format, node: &Node) -> Result<(), Fault> {
    if format <= reads(node) {
        return Ok(());
    }
    let text = format!(
        "{} cannot be a manager: its release cannot read what the cluster has stored, update it first",
        name(node)
    );
    Err(Fault::unavailable(text))
}

/// One that has not said so may be of the release before.
fn reads(node: &Node) -> Format {
    Format(node.description.log_format).max(Format::LEAST)
}

fn name(node: &Node) -> &str {
    let hostname = &node.description.hostname;
    if hostname.is_empty() { node.id.as_str() } else { hostname }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Tx;
    use types::{ManagerStatus, NodeDescription, Service, ServiceMode, Timestamp, Version};

    const LATER: Format = Format(Format::PRESENT.0 + 1);

    fn node(id: &str, manages: bool, log_format: u32) -> Node {
        let description = NodeDescription { log_format, ..NodeDescription::default() };
        let part = manages.then(ManagerStatus::default);
        Node { id: id.into(), manager: part, description, ..Node::default() }
    }

    fn view(nodes: impl IntoIterator<Item = Node>) -> View {
        let mut tx = Tx::new(&View::default());
        nodes.into_iter().for_each(|node| tx.put_node(node));
        let mut view = View::default();
        view.apply(&tx.finish(), Version(1), Timestamp(1));
        view
    }

    #[test]
    fn what_a_manager_would_not_read_is_refused_with_its_name_until_it_is_updated() {
        let former = view([node("m1", true, LATER.0), node("m2", true, 0), node("w", false, 0)]);
        let refused = check_format(&former, LATER).unwrap_err();
        assert_eq!(refused.kind, types::FaultKind::Unavailable);
        assert!(refused.message.contains("update m2 first"), "{refused}");
        assert_eq!(check_format(&former, Format::LEAST), Ok(()));
        let updated = view([node("m1", true, LATER.0), node("m2", true, LATER.0)]);
        assert_eq!(check_format(&updated, LATER), Ok(()));
    }

    #[test]
    fn a_job_is_not_stored_before_all_managers_know_jobs() {
        let with_job = |view: &View| {
            let mut tx = Tx::new(view);
            let mut job = Service { id: "job".into(), ..Service::default() };
            job.spec.mode = ServiceMode::GlobalJob;
            tx.put_service(job);
            tx.finish()
        };
        let former = view([node("m1", true, Format::JOBS.0), node("m2", true, 0)]);
        let refused = check(&former, &with_job(&former)).unwrap_err();
        assert!(refused.message.contains("update m2 first"), "{refused}");
        let mut updated = view([node("m1", true, Format::JOBS.0)]);
        let changes = with_job(&updated);
        assert_eq!(check(&updated, &changes), Ok(()));
        updated.apply(&changes, Version(2), Timestamp(2));
        assert_eq!(updated.format(), Format::JOBS);
        assert_eq!(crate::Snapshot::from(&updated).format, Format::JOBS);
        assert!(may_manage(&updated, &node("n", false, 0)).is_err());
        let mut tx = Tx::new(&updated);
        tx.remove_service(&"job".into());
        updated.apply(&tx.finish(), Version(3), Timestamp(3));
        assert_eq!(updated.format(), Format::LEAST);
    }

    #[test]
    fn no_node_becomes_a_manager_that_would_not_read_what_is_stored() {
        assert_eq!(check_reads(Format::LEAST, &node("n", false, 0)), Ok(()));
        assert_eq!(check_reads(LATER, &node("n", false, LATER.0)), Ok(()));
        let refused = check_reads(LATER, &node("n", false, Format::PRESENT.0)).unwrap_err();
        assert!(refused.message.starts_with("n cannot be a manager"), "{refused}");
    }

    #[test]
    fn what_former_releases_know_is_written_as_they_read_it() {
        let view = view([node("m", true, 0)]);
        assert_eq!(view.format(), Format::LEAST);
        assert_eq!(Changes::default().format(&view), Format::LEAST);
        assert_eq!(crate::Snapshot::from(&view).format, Format::LEAST);
    }
}
