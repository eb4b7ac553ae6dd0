//! Secrets and configs. Both go the same way.
//!
//! What is in one never changes. Another content under the same name is another object, the next revision
//! of the name (`revision`): services that refer to the name are updated to it like by any other change of their specs.
//!
//! Invariant: nothing of their content is in what users are told.

use super::{check_version, specs_in_use};
use crate::clock::RandomIds;
use raft::Sequencer;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use store::rules::name_taken;
use store::{Changes, Record, Tx, View};
use types::{
    Config, ConfigId, ContainerSpec, Fault, FileSpec, GivenFile, Secret, SecretId, Version,
};
use wire::Order;

mod revision;

pub(super) use revision::check_follows;

/// The longest name, swarmkit's.
const NAME_MAX: usize = 64;

/// A secret or a config, as the store has it.
pub trait StoredFile: GivenFile + Record<Id = <Self as GivenFile>::Id> {
    /// The one of this name, compared without case.
    fn named<'a>(view: &'a View, name: &str) -> Option<&'a Self>;
    fn order_new(spec: FileSpec) -> Order;
    fn order_update(id: <Self as GivenFile>::Id, version: Version, spec: FileSpec) -> Order;
    fn order_removal(id: <Self as GivenFile>::Id) -> Order;
}

macro_rules! stored_file {
    ($kind:ident($id:ident), $named:ident, $create:ident, $update:ident, $remove:ident) => {
        impl StoredFile for $kind {
            fn named<'a>(view: &'a View, name: &str) -> Option<&'a Self> {
                view.$named(name).map(AsRef::as_ref)
            }

            fn order_new(spec: FileSpec) -> Order {
                Order::$create { spec }
            }

            fn order_update(id: $id, version: Version, spec: FileSpec) -> Order {
                Order::$update { id, version, spec }
            }

            fn order_removal(id: $id) -> Order {
                Order::$remove { id }
            }
        }
    };
}

stored_file!(Secret(SecretId), secret_named, CreateSecret, UpdateSecret, RemoveSecret);
stored_file!(Config(ConfigId), config_named, CreateConfig, UpdateConfig, RemoveConfig);

pub(crate) async fn create<T: StoredFile>(
    sequencer: &Sequencer,
    spec: FileSpec,
) -> Result<String, Fault> {
    let id = T::draw_id(&mut RandomIds);
    let created = id.to_string();
    sequencer.sequence(move |view: &View, _| with_new::<T>(view, id, spec)).await?;
    Ok(created)
}

pub(crate) async fn update<T: StoredFile>(
    sequencer: &Sequencer,
    id: <T as GivenFile>::Id,
    version: Version,
    spec: FileSpec,
) -> Result<(), Fault> {
    if spec.revision == 0 {
        let decide = move |view: &View, _| with_updated::<T>(view, &id, version, spec);
        sequencer.sequence(decide).await?;
    } else {
        let new = T::draw_id(&mut RandomIds);
        let decide =
            move |view: &View, _| revision::with_next::<T>(view, (&id, version), (new, spec));
        sequencer.sequence(decide).await?;
    }
    Ok(())
}

pub(crate) async fn remove<T: StoredFile>(
    sequencer: &Sequencer,
    id: <T as GivenFile>::Id,
) -> Result<(), Fault> {
    sequencer.sequence(move |view: &View, _| without::<T>(view, &id)).await?;
    Ok(())
}

/// One that is made.
pub fn with_new<T: StoredFile>(
    view: &View,
    id: <T as GivenFile>::Id,
    spec: FileSpec,
) -> Result<Changes, Fault> {
    check::<T>(&spec)?;
    if T::named(view, &spec.name).is_some() {
        return Err(name_taken::<T>(&spec.name));
    }
    let mut tx = Tx::new(view);
    tx.put(T::new(id, spec));
    Ok(tx.finish())
}

fn check<T: GivenFile>(spec: &FileSpec) -> Result<(), Fault> {
    let name = spec.name.as_str();
    if name.is_empty() {
        return Err(Fault::invalid("name must be provided"));
    }
    let is_end = |c: char| c.is_ascii_alphanumeric();
    let inside = |c: char| is_end(c) || matches!(c, '-' | '_' | '.');
    let fits = name.starts_with(is_end) && name.ends_with(is_end) && name.chars().all(inside);
    if !fits || NAME_MAX < name.len() {
        return Err(Fault::invalid(
            "invalid name, only 64 [a-zA-Z0-9-_.] characters allowed, and the start and end \
             character must be [a-zA-Z0-9]",
        ));
    }
    if !(1..T::LIMIT).contains(&spec.content.data.len()) {
        let (word, limit) = (T::WORD, T::LIMIT);
        return Err(Fault::invalid(format!(
            "{word} data must be larger than 0 and less than {limit} bytes"
        )));
    }
    Ok(())
}

/// One that gets other labels, if it is still at `version`. A spec without content means the same.
pub fn with_updated<T: StoredFile>(
    view: &View,
    id: &<T as GivenFile>::Id,
    version: Version,
    spec: FileSpec,
) -> Result<Changes, Fault> {
    let was = known::<T>(view, id)?;
    check_version(was.meta(), version)?;
    let (old, new) = (&was.spec().content, &spec.content);
    let is_same = spec.name == was.spec().name
        && (new.data.is_empty() || new.data == old.data)
        && (new.templating.is_none() || new.templating == old.templating);
    if !is_same {
        return Err(Fault::invalid("only updates to Labels are allowed"));
    }
    let mut tx = Tx::new(view);
    tx.edit::<T>(id, |it| it.spec_mut().labels = spec.labels);
    Ok(tx.finish())
}

/// One that is removed, and all former ones of its name: no service uses them.
pub fn without<T: StoredFile>(view: &View, id: &<T as GivenFile>::Id) -> Result<Changes, Fault> {
    let file = known::<T>(view, id)?;
    let ids = if file.spec().former {
        BTreeSet::from([id.clone()])
    } else {
        revision::ids_of_name::<T>(view, &file.spec().name)
    };
    let refers =
        |container: &ContainerSpec| T::references(container).iter().any(|it| ids.contains(&it.id));
    let users = view
        .services()
        .filter(|service| specs_in_use(service).any(|spec| refers(&spec.task.container)));
    let users: BTreeSet<&str> = users.map(|service| service.spec.name.as_str()).collect();
    if !users.is_empty() {
        let (word, name) = (T::WORD, &file.spec().name);
        let services = if users.len() == 1 { "service" } else { "services" };
        let users = users.into_iter().collect::<Vec<_>>().join(", ");
        return Err(Fault::invalid(format!(
            "{word} '{name}' is in use by the following {services}: {users}"
        )));
    }
    let mut tx = Tx::new(view);
    for id in &ids {
        tx.remove::<T>(id);
    }
    Ok(tx.finish())
}

fn known<'a, T: StoredFile>(view: &'a View, id: &<T as GivenFile>::Id) -> Result<&'a T, Fault> {
    let found = view.get::<T>(id).map(AsRef::as_ref);
    found.ok_or_else(|| Fault::not_found(format!("{} {id} not found", T::WORD)))
}

/// Says what is wrong with a container's files, taken by themselves.
pub(super) fn check_references(container: &ContainerSpec) -> Result<(), Fault> {
    let mounts = container.mounts.iter().map(|mount| PathBuf::from(&mount.target));
    let mut paths = mounts.collect();
    check_kind::<Secret>(container, &mut paths)?;
    check_kind::<Config>(container, &mut paths)
}

fn check_kind<T: GivenFile>(
    container: &ContainerSpec,
    paths: &mut BTreeSet<PathBuf>,
) -> Result<(), Fault> {
    let (word, mut names) = (T::WORD, BTreeMap::new());
    for reference in T::references(container) {
        let (name, target) = (&reference.name, &reference.target.name);
        if name.is_empty() || reference.id.to_string().is_empty() {
            return Err(Fault::invalid(format!("malformed {word} reference")));
        }
        let Some(path) = T::path(&reference.target) else {
            return Err(Fault::invalid(format!(
                "malformed file {word} reference, invalid target file name provided"
            )));
        };
        if let Some(other) = names.insert(path.clone(), name) {
            return Err(Fault::invalid(format!(
                "{word} references '{other}' and '{name}' have a conflicting target: '{target}'"
            )));
        }
        if !paths.insert(path.clone()) {
            let path = path.display();
            return Err(Fault::invalid(format!("ContainerSpec: duplicate mount point: {path}")));
        }
        if 0o777 < reference.target.mode {
            let mode = reference.target.mode;
            return Err(Fault::invalid(format!(
                "invalid mode {mode:o} of the {word} {name}: a file has at most 777"
            )));
        }
    }
    Ok(())
}

/// Says whether all that a container refers to is there.
pub(super) fn check_existence(view: &View, container: &ContainerSpec) -> Result<(), Fault> {
    missing::<Secret>(view, container)?;
    missing::<Config>(view, container)
}

fn missing<T: StoredFile>(view: &View, container: &ContainerSpec) -> Result<(), Fault> {
    let is_there = |id, name: &str| view.get::<T>(id).is_some_and(|it| it.spec().name == name);
    let missing = T::references(container).iter().filter(|it| !is_there(&it.id, &it.name));
    let missing: Vec<&str> = missing.map(|it| it.name.as_str()).collect();
    match missing.as_slice() {
        [] => Ok(()),
        [one] => Err(Fault::invalid(format!("{} not found: {one}", T::WORD))),
        all => Err(Fault::invalid(format!("{}s not found: {}", T::WORD, all.join(", ")))),
    }
}

#[cfg(test)]
mod tests;
