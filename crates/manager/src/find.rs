//! What users call things: a full id, a name, or the unique beginning of an id.

use crate::control::file::StoredFile;
use std::sync::Arc;
use store::View;
use types::{Fault, GivenFile, Network, Node, Service, Task};

/// Finds a service.
pub fn service(view: &View, term: &str) -> Result<Arc<Service>, Fault> {
    if let Some(found) = view.service(&term.into()) {
        return Ok(Arc::clone(found));
    }
    if let Some(found) = view.service_named(term).filter(|found| found.spec.name == term) {
        return Ok(Arc::clone(found));
    }
    by_prefix("service", term, view.services().map(|it| (it.id.as_str(), it)))
}

/// Finds a network of the cluster.
pub fn network(view: &View, term: &str) -> Result<Arc<Network>, Fault> {
    let there = |network: &&Arc<Network>| !network.removed;
    if let Some(found) = view.network(&term.into()).filter(there) {
        return Ok(Arc::clone(found));
    }
    if let Some(found) = view.network_named(term).filter(|found| found.spec.name == term) {
        return Ok(Arc::clone(found));
    }
    by_prefix("network", term, view.networks().filter(there).map(|it| (it.id.as_str(), it)))
}

/// Finds a secret or a config. Its name is found in any case: no two differ by it alone.
pub fn file<T: StoredFile>(view: &View, term: &str) -> Result<Arc<T>, Fault> {
    let all = || view.all::<T>().map(|it| (it, GivenFile::id(it.as_ref()).to_string()));
    if let Some((found, _)) = all().find(|(_, id)| id == term) {
        return Ok(Arc::clone(found));
    }
    let named = T::named(view, term);
    if let Some(found) = named.and_then(|found| view.get::<T>(GivenFile::id(found))) {
        return Ok(Arc::clone(found));
    }
    let all: Vec<_> = all().collect();
    by_prefix(T::WORD, term, all.iter().map(|(it, id)| (id.as_str(), *it)))
}

/// Finds a node; its name is its host name. Several nodes may have the same one.
pub fn node(view: &View, term: &str) -> Result<Arc<Node>, Fault> {
    if let Some(found) = view.node(&term.into()) {
        return Ok(Arc::clone(found));
    }
    let named = |node: &&Arc<Node>| node.description.hostname == term || node.spec.name == term;
    if let Some(found) = one("node", term, view.nodes().filter(named))? {
        return Ok(found);
    }
    by_prefix("node", term, view.nodes().map(|it| (it.id.as_str(), it)))
}

/// Finds the manager with this number in the log's membership.
pub(crate) fn manager(view: &View, raft_id: u64) -> Option<&Arc<Node>> {
    let is_it = |node: &&Arc<Node>| node.manager.as_ref().is_some_and(|it| it.raft_id == raft_id);
    view.nodes().find(is_it)
}

/// Where managers are, `host:port`.
pub fn addresses(view: &View) -> Vec<String> {
    let managers = view.nodes().filter_map(|node| node.manager.as_ref());
    managers.map(|manager| manager.address.clone()).collect()
}

/// Finds a task; its name is `service.slot.id`, or `service.slot` while only one is wanted there.
pub fn task(view: &View, term: &str) -> Result<Arc<Task>, Fault> {
    if let Some(found) = view.task(&term.into()) {
        return Ok(Arc::clone(found));
    }
    if let Some(found) = one("task", term, view.tasks().filter(|task| task.name() == term))? {
        return Ok(found);
    }
    by_prefix("task", term, view.tasks().map(|it| (it.id.as_str(), it)))
}

fn by_prefix<'a, T: 'a>(
    kind: &str,
    term: &str,
    all: impl Iterator<Item = (&'a str, &'a Arc<T>)>,
) -> Result<Arc<T>, Fault> {
    let matches = all.filter(|(id, _)| !term.is_empty() && id.starts_with(term));
    one(kind, term, matches.map(|(_, it)| it))?
        .ok_or_else(|| Fault::not_found(format!("{kind} {term} not found")))
}

fn one<'a, T: 'a>(
    kind: &str,
    term: &str,
    mut matches: impl Iterator<Item = &'a Arc<T>>,
) -> Result<Option<Arc<T>>, Fault> {
    let first = matches.next().cloned();
    let more = matches.count();
    if more > 0 {
        let count = more + 1;
        return Err(Fault::invalid(format!("{kind} {term} is ambiguous ({count} matches found)")));
    }
    Ok(first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use store::Tx;
    use types::{FaultKind, Secret, ServiceSpec};

    fn view() -> View {
        let mut tx = Tx::new(&View::default());
        for (id, name) in [("abc1", "web"), ("abd2", "db"), ("xyz3", "ab")] {
            let spec = ServiceSpec { name: name.into(), ..ServiceSpec::default() };
            tx.put_service(Service { id: id.into(), spec, ..Service::default() });
        }
        let mut view = View::default();
        view.apply(&tx.finish(), types::Version(1), types::Timestamp(1));
        view
    }

    #[test]
    fn a_name_wins_over_the_beginning_of_an_id() {
        assert_eq!(service(&view(), "ab").unwrap().id, "xyz3".into());
        assert_eq!(service(&view(), "abd").unwrap().id, "abd2".into());
        assert_eq!(service(&view(), "abc1").unwrap().id, "abc1".into());
    }

    #[test]
    fn what_is_not_there_or_not_unique_is_said() {
        let missing = service(&view(), "nope").unwrap_err();
        assert_eq!(missing, Fault::not_found("service nope not found"));
        assert_eq!(service(&view(), "").unwrap_err().kind, FaultKind::NotFound);
        let several = service(&view(), "a").unwrap_err();
        assert_eq!(several, Fault::invalid("service a is ambiguous (2 matches found)"));
    }

    #[test]
    fn a_secret_is_found_by_its_name_in_any_case_and_a_service_is_not() {
        let mut tx = Tx::new(&View::default());
        let mut secret = Secret { id: "s1".into(), ..Secret::default() };
        secret.spec.name = "db-Key".into();
        tx.put(secret);
        let mut with_secret = View::default();
        with_secret.apply(&tx.finish(), types::Version(1), types::Timestamp(1));
        for term in ["db-Key", "DB-KEY", "db-key", "s1", "s"] {
            assert_eq!(file::<Secret>(&with_secret, term).unwrap().id, "s1".into(), "{term}");
        }
        assert_eq!(file::<Secret>(&with_secret, "db").unwrap_err().kind, FaultKind::NotFound);
        assert_eq!(service(&view(), "WEB").unwrap_err().kind, FaultKind::NotFound);
    }
}
