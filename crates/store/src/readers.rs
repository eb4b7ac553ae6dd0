//! What all managers read: nothing is written that one of them would not understand.
//!
//! A cluster is updated one manager after the other, and may be rolled back as long as nothing was
//! stored that the release before does not know. Each node says which format its release reads; what is
//! the first of a later format is refused while a manager reads it not. From then on the log is
//! written in that format, and no node becomes a manager that does not read it; also once all of it
//! has gone again, as the log still says what was there.

use crate::{Format, Object, View};
use types::{Fault, Node};

/// Refuses what is the first of its format, where one that is still a manager then does not read it.
pub(crate) fn check(before: &View, after: &View) -> Result<(), Fault> {
    if after.format() <= before.format() {
        return Ok(());
    }
    check_format(after, after.format())
}

/// Refuses what only releases understand that read a format, where a manager does not read it.
fn check_format(view: &View, needed: Format) -> Result<(), Fault> {
    let old: Vec<&str> = old_managers(view, needed).map(Node::known_as).collect();
    if old.is_empty() {
        return Ok(());
    }
    let text = format!(
        "not before all managers run a release that can read it: update {} first",
        old.join(", ")
    );
    Err(Fault::unavailable(text))
}

/// Says whether an object may be written with all that is in it: every manager reads it.
pub fn all_read(view: &View, object: &Object) -> bool {
    old_managers(view, object.since()).next().is_none()
}

fn old_managers(view: &View, needed: Format) -> impl Iterator<Item = &Node> {
    let managers = view.nodes().map(AsRef::as_ref).filter(|node| node.manager.is_some());
    managers.filter(move |node| reads(node) < needed)
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
        node.known_as()
    );
    Err(Fault::unavailable(text))
}

/// Says whether all managers know that a task may take over from another one of its slot, and where a
/// slot is at home.
pub fn know_moves(view: &View) -> bool {
    old_managers(view, Format::FILES).next().is_none()
}

/// Says whether a node's release can give containers secrets and configs, and what is the node's
/// own.
pub fn knows_files(node: &Node) -> bool {
    Format::FILES <= reads(node)
}

/// One that has not said so may be of the release before.
fn reads(node: &Node) -> Format {
    Format(node.description.log_format).max(Format::LEAST)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Changes, Key, Snapshot, Tx, rules};
    use types::{
        Cluster, ClusterSpec, Config, ManagerStatus, NodeDescription, Secret, Service, ServiceMode,
        Task, Timestamp, Version,
    };

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
            let mut view = view.clone();
            view.apply(&tx.finish(), Version(2), Timestamp(2));
            view
        };
        let former = view([node("m1", true, Format::FILES.0), node("m2", true, 0)]);
        let refused = check(&former, &with_job(&former)).unwrap_err();
        assert!(refused.message.contains("update m2 first"), "{refused}");
        let updated = view([node("m1", true, Format::FILES.0)]);
        let stored = with_job(&updated);
        assert_eq!(check(&updated, &stored), Ok(()));
        assert_eq!(stored.format(), Format::FILES);
        assert_eq!(Snapshot::from(&stored).format, Format::FILES);
        assert!(may_manage(&stored, &node("n", false, 0)).is_err());
    }

    #[test]
    fn a_constraint_beyond_dockers_is_not_stored_before_all_managers_know_such() {
        let with = |view: &View, constraint: &str| {
            let mut tx = Tx::new(view);
            let mut service = Service { id: "web".into(), ..Service::default() };
            service.spec.task.placement.constraints = vec![constraint.to_owned()];
            tx.put_service(service);
            let mut view = view.clone();
            view.apply(&tx.finish(), Version(2), Timestamp(2));
            view
        };
        let former = view([node("m1", true, 2)]);
        let updated = view([node("m1", true, Format::FILES.0)]);
        for constraint in
            ["node.labels.zone=={a,b}", "node.role==worker || node.id==x", "service==web"]
        {
            let refused = check(&former, &with(&former, constraint)).unwrap_err();
            assert!(refused.message.contains("update m1 first"), "{refused}");
            assert_eq!(check(&updated, &with(&updated, constraint)), Ok(()));
        }
        assert_eq!(check(&former, &with(&former, "node.labels.zone==a")), Ok(()));
    }

    #[test]
    fn a_sticky_service_is_not_stored_before_all_managers_keep_where_it_is() {
        let with_sticky = |view: &View| {
            let mut service = Service { id: "db".into(), ..Service::default() };
            service.spec.labels.insert(types::STICKY_LABEL.to_owned(), "on".to_owned());
            let mut tx = Tx::new(view);
            tx.put_service(service);
            let mut view = view.clone();
            view.apply(&tx.finish(), Version(2), Timestamp(2));
            view
        };
        let former = view([node("m1", true, 2)]);
        let refused = check(&former, &with_sticky(&former)).unwrap_err();
        assert!(refused.message.contains("update m1 first"), "{refused}");
        let updated = view([node("m1", true, Format::FILES.0)]);
        assert_eq!(check(&updated, &with_sticky(&updated)), Ok(()));
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
        assert_eq!(formats(&view), [Format::LEAST; 3]);
    }

    /// Of the view, of what is written next, and of a snapshot.
    fn formats(view: &View) -> [Format; 3] {
        [view.format(), Changes::default().format(view), Snapshot::from(view).format]
    }

    fn changed(view: &mut View, change: impl FnOnce(&mut Tx)) -> Result<Changes, Fault> {
        let mut tx = Tx::new(view);
        change(&mut tx);
        let changes = tx.finish();
        *view = rules::admit(view, &changes, Version(view.version().0 + 1), Timestamp(2))?;
        Ok(changes)
    }

    /// Entries of the log, and the file that they are in, still have the format of what is gone.
    #[test]
    fn what_was_stored_once_is_still_in_the_log_when_it_has_gone() {
        let secret = Secret { id: "x".into(), ..Secret::default() };
        let mut view = view([node("m", true, Format::PRESENT.0)]);
        changed(&mut view, |tx| tx.put(secret)).unwrap();
        let gone = changed(&mut view, |tx| tx.remove::<Secret>(&"x".into())).unwrap();
        assert!(view.get::<Secret>(&"x".into()).is_none());
        assert_eq!(formats(&view), [Format::PRESENT; 3]);
        let restored = View::try_from(Snapshot::from(&view)).unwrap();
        assert_eq!(formats(&restored), [Format::PRESENT; 3], "a snapshot says it, too");
        let refused = may_manage(&restored, &node("old", false, 0)).unwrap_err();
        assert!(refused.message.starts_with("old cannot be a manager"), "{refused}");
        // Whoever reads the entry finds a key in it that the release before does not know.
        assert_eq!(gone.format(&View::default()), Format::PRESENT);
    }

    /// A former release would start a task without what it asks of its node.
    fn labels() -> types::Labels {
        [("skep.privileged".to_owned(), "true".to_owned())].into()
    }

    fn hosts() -> Vec<types::NetworkAttachment> {
        let target = types::NodeNetwork::Host.id().into();
        vec![types::NetworkAttachment { target, aliases: Vec::new() }]
    }

    /// The release before reads an object without what it does not know, and would write it so.
    #[test]
    fn a_field_that_would_be_lost_is_refused_as_a_new_kind_of_objects_is() {
        let with_files = || {
            let mut spec = types::TaskSpec::default();
            spec.container.configs = vec![types::FileReference::default()];
            spec
        };
        let cluster = |cluster: Cluster| Object::Cluster(cluster.into());
        let spec = |spec| cluster(Cluster { spec, ..Cluster::default() });
        let mut removed = Cluster::default();
        removed.note_removed("n".into(), Timestamp(1));
        let mut service = Service::default();
        service.spec.task = with_files().into();
        let asks = |edit: fn(&mut types::TaskSpec)| {
            let mut service = Service::default();
            edit(&mut service.spec.task);
            Object::Service(service.into())
        };
        let back = Service { previous_spec: Some(service.spec.clone()), ..Service::default() };
        for (what, object) in [
            ("generation", cluster(Cluster { generation: 1, ..Cluster::default() })),
            ("removed", cluster(removed)),
            ("kept", spec(ClusterSpec { kept_snapshots: 1, ..ClusterSpec::default() })),
            ("entries", spec(ClusterSpec { kept_entries: 1, ..ClusterSpec::default() })),
            ("service", Object::Service(service.into())),
            ("rollback", Object::Service(back.into())),
            ("label", asks(|spec| spec.container.labels = labels())),
            ("node's network", asks(|spec| spec.networks = hosts())),
            ("task", Object::Task(Task { spec: with_files().into(), ..Task::default() }.into())),
            ("secret", Object::Secret(Secret::default().into())),
            ("config", Object::Config(Config::default().into())),
        ] {
            assert_eq!(object.since(), Format::PRESENT, "{what}");
            let put = |view: &mut View| {
                let object = object.clone();
                changed(view, |tx| tx.store(object))
            };
            let mut mixed = view([node("m1", true, Format::PRESENT.0), node("m2", true, 0)]);
            assert!(!all_read(&mixed, &object), "{what}");
            let refused = put(&mut mixed).unwrap_err();
            assert!(refused.message.contains("update m2 first"), "{what}: {refused}");
            assert_eq!(formats(&mixed), [Format::LEAST; 3], "{what}");
            let mut updated = view([node("m1", true, Format::PRESENT.0), node("w", false, 0)]);
            assert!(all_read(&updated, &object), "{what}");
            put(&mut updated).unwrap();
            assert_eq!(formats(&updated), [Format::PRESENT; 3], "{what}");
        }
        assert_eq!(cluster(Cluster::default()).since(), Format(1), "all that is usual");
    }

    /// One manager goes on alone: those that are lost hold up nothing.
    #[test]
    fn who_is_no_manager_any_more_is_not_asked() {
        let mut view = view([node("m1", true, Format::PRESENT.0), node("m2", true, 0)]);
        let alone = changed(&mut view, |tx| {
            tx.put_cluster(Cluster { generation: 1, ..Cluster::default() });
            tx.edit_node(&"m2".into(), |node| node.manager = None);
        });
        assert!(alone.unwrap().changes.iter().any(|it| matches!(it.key(), Key::Node(_))));
        assert_eq!(view.format(), Format::PRESENT);
    }
}
