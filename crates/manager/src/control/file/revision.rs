//! Another content under a name: the next revision of a secret or a config.

use super::{StoredFile, check, check_version, known};
use std::collections::{BTreeMap, BTreeSet};
use store::{Changes, Tx, View};
use types::{
    Fault, FileSpec, GivenFile, Refresh, Service, ServiceSpec, SharedSpec, SpecId, Task, TaskId,
    TaskSpec, UpdateState, UpdateStatus, Version,
};

/// The label by which a service says what a new revision of a secret or a config of it does.
pub(super) const FOLLOWS: &str = "skep.file-update";

/// Refuses what a service says of new revisions, where nothing is done by it.
pub(in crate::control) fn check_follows(spec: &ServiceSpec) -> Result<(), Fault> {
    let Some(value) = spec.labels.get(FOLLOWS) else { return Ok(()) };
    match Follows::parse(value) {
        Some(_) => Ok(()),
        None => Err(Fault::invalid(format!(
            "invalid value of the label {FOLLOWS}: {value:?} (roll: the service is updated to a new \
             revision of its secrets and configs; stay: it is not; swap: the files of containers that run \
             are replaced; signal=NAME: and their processes get a signal: {})",
            SIGNALS.join(", ")
        ))),
    }
}

/// What a service does when there is a new revision.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Follows {
    Roll,
    Stay,
    /// Its containers get the new files while they run, and this signal where it is not empty.
    Swap(String),
}

/// Those that make sense where a process goes on.
const SIGNALS: [&str; 6] = ["HUP", "USR1", "USR2", "WINCH", "CONT", "INT"];

impl Follows {
    fn parse(value: &str) -> Option<Self> {
        match value {
            "roll" => Some(Self::Roll),
            "stay" => Some(Self::Stay),
            "swap" => Some(Self::Swap(String::new())),
            _ => {
                let name = value.strip_prefix("signal=")?;
                let name = name.strip_prefix("SIG").unwrap_or(name);
                SIGNALS.contains(&name).then(|| Self::Swap(name.to_owned()))
            }
        }
    }

    fn of(service: &Service) -> Self {
        let said = service.spec.labels.get(FOLLOWS).and_then(|value| Self::parse(value));
        said.unwrap_or(Self::Roll)
    }
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
    for service in view.services() {
        let follows = Follows::of(service);
        let references = T::references(&service.spec.task.container);
        if follows == Follows::Stay || !references.iter().any(|it| ids.contains(&it.id)) {
            continue;
        }
        let before = service;
        let mut service = Service::clone(service);
        move_to::<T>(&mut service, &ids, &new);
        if let Follows::Swap(signal) = &follows {
            swap_in_tasks::<T>(&mut tx, (before, signal), (&ids, &new));
        }
        tx.put_service(service);
    }
    planner::forget_former_files(&mut tx);
    Ok(tx.finish())
}

/// As any other update of a service, but for what is under way: whoever makes a revision may not know of
/// it. What has not proven itself yet is no way back, and what was paused goes on when somebody says so.
/// A job is not run anew by it: what runs next has the new revision.
fn move_to<T: GivenFile>(service: &mut Service, ids: &BTreeSet<T::Id>, new: &T::Id) {
    let before = service.spec.clone();
    refer_to::<T>(&mut service.spec.task, ids, new);
    let state = service.update.as_ref().map(|update| update.state);
    let is_paused = matches!(state, Some(UpdateState::Paused | UpdateState::RollbackPaused));
    let runs = service.update.as_ref().is_some_and(UpdateStatus::runs);
    let is_asked_for = state.is_none() && service.previous_spec.is_some();
    if !(is_paused || runs || is_asked_for) {
        service.previous_spec = Some(before);
    }
    if !is_paused {
        service.update = None;
    }
}

/// Tasks that are what the service asked for become what it asks for now: their containers get the new
/// files while they run, and no update has anything to replace.
fn swap_in_tasks<T: GivenFile>(
    tx: &mut Tx,
    (before, signal): (&Service, &str),
    (ids, new): (&BTreeSet<T::Id>, &T::Id),
) {
    let tasks = tx.tasks_of_service(&before.id);
    let tasks = tasks.filter(|task| task.occupies() && planner::is_current(tx, before, task));
    let tasks: Vec<(TaskId, SharedSpec)> =
        tasks.map(|task| (task.id.clone(), task.spec.clone())).collect();
    // What is made from the same stays so.
    let mut moved: BTreeMap<SpecId, SharedSpec> = BTreeMap::new();
    for (id, spec) in tasks {
        let spec = moved.entry(spec.id().clone()).or_insert_with(|| {
            let mut own = TaskSpec::clone(&spec);
            refer_to::<T>(&mut own, ids, new);
            own.into()
        });
        tx.edit::<Task>(&id, |task| {
            task.spec = spec.clone();
            // One that has no files yet gets them as any other.
            if task.node.is_some() {
                let number = task.refresh.as_ref().map_or(0, |refresh| refresh.number) + 1;
                task.refresh = Some(Refresh { number, signal: signal.to_owned() });
            }
        });
    }
}

fn refer_to<T: GivenFile>(spec: &mut TaskSpec, ids: &BTreeSet<T::Id>, new: &T::Id) {
    for reference in T::references_mut(&mut spec.container) {
        if ids.contains(&reference.id) {
            reference.id = new.clone();
        }
    }
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
