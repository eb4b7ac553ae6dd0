//! Another content under a name: the next revision of a secret or a config.

use super::{StoredFile, check, check_version, known};
use std::collections::BTreeSet;
use store::{Changes, Tx, View};
use types::{Fault, FileSpec, GivenFile, Service, ServiceSpec, Version};

/// The label by which a service says what a new revision of a secret or a config of it does.
pub(super) const FOLLOWS: &str = "skep.file-update";

/// Refuses what a service says of new revisions, where nothing is done by it.
pub(in crate::control) fn check_follows(spec: &ServiceSpec) -> Result<(), Fault> {
    match spec.labels.get(FOLLOWS).map(String::as_str) {
        None | Some("roll" | "stay") => Ok(()),
        Some(other) => Err(Fault::invalid(format!(
            "invalid value of the label {FOLLOWS}: {other:?} (roll: the service is updated to a new \
             revision of its secrets and configs; stay: it is not)"
        ))),
    }
}

fn follows(service: &Service) -> bool {
    service.spec.labels.get(FOLLOWS).is_none_or(|value| value != "stay")
}

/// The next revision of the one that is still at `version` and the last of its name: a new object, to
/// which the services are updated that refer to the name. One with the same content is none.
pub(super) fn with_next<T: StoredFile>(
    view: &View,
    (id, version): (&<T as GivenFile>::Id, Version),
    (new, mut spec): (<T as GivenFile>::Id, FileSpec),
) -> Result<Changes, Fault> {
    let was = known::<T>(view, id)?;
    check_version(was.meta(), version)?;
    let (word, before) = (T::WORD, was.spec());
    if spec.name != before.name {
        return Err(Fault::invalid(format!("a {word} keeps its name: {}", before.name)));
    }
    if before.former {
        let text = format!("{word} {} has a later revision: update that one", before.name);
        return Err(Fault::conflict(text));
    }
    check::<T>(&spec)?;
    spec.content.templating = spec.content.templating.or(before.content.templating);
    let mut tx = Tx::new(view);
    if spec.content == before.content {
        tx.edit::<T>(id, |it| it.spec_mut().labels = spec.labels);
        return Ok(tx.finish());
    }
    spec.revision = before.revision + 1;
    spec.former = false;
    let ids = ids_of_name::<T>(view, &before.name);
    tx.edit::<T>(id, |it| it.spec_mut().former = true);
    tx.put(T::new(new.clone(), spec));
    for service in view.services().filter(|service| follows(service)) {
        let refers = |id: &<T as GivenFile>::Id| ids.contains(id);
        if T::references(&service.spec.task.container).iter().any(|it| refers(&it.id)) {
            let mut service = Service::clone(service);
            move_to::<T>(&mut service, &ids, &new);
            tx.put_service(service);
        }
    }
    planner::forget_former_files(&mut tx);
    Ok(tx.finish())
}

/// As any other update of a service. A job is not run anew by it: what runs next has the new revision.
fn move_to<T: GivenFile>(service: &mut Service, ids: &BTreeSet<T::Id>, new: &T::Id) {
    let before = service.spec.clone();
    for reference in T::references_mut(&mut service.spec.task.container) {
        if ids.contains(&reference.id) {
            reference.id = new.clone();
        }
    }
    service.previous_spec = Some(before);
    service.update = None;
}

/// All revisions of a name.
pub(super) fn ids_of_name<T: StoredFile>(
    view: &View,
    name: &str,
) -> BTreeSet<<T as GivenFile>::Id> {
    let all = view.all::<T>().filter(|it| it.spec().name.eq_ignore_ascii_case(name));
    all.map(|it| GivenFile::id(it.as_ref()).clone()).collect()
}

#[cfg(test)]
#[path = "revision_tests.rs"]
mod tests;
