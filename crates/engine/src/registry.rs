//! The containers of this node, by id and by name.

use crate::container::Container;
use std::collections::BTreeMap;
use std::sync::Arc;
use types::Fault;

#[derive(Debug, Default)]
pub(crate) struct Registry {
    containers: BTreeMap<String, Arc<Container>>,
    /// Name to id, also of those that are still being made.
    names: BTreeMap<String, String>,
}

impl Registry {
    /// Keeps a name for a container that is being made.
    pub(crate) fn reserve(&mut self, name: &str, id: &str) -> Result<(), Fault> {
        if self.containers.contains_key(id) || self.names.values().any(|known| known == id) {
            return Err(Fault::conflict(format!("container id {id} is already in use")));
        }
        if let Some(holder) = self.names.get(name) {
            return Err(Fault::conflict(format!(
                "Conflict. The container name \"/{name}\" is already in use by container \
                 \"{holder}\". You have to remove (or rename) that container to be able to reuse \
                 that name."
            )));
        }
        self.names.insert(name.to_owned(), id.to_owned());
        Ok(())
    }

    pub(crate) fn is_taken(&self, name: &str) -> bool {
        self.names.contains_key(name)
    }

    pub(crate) fn insert(&mut self, container: Arc<Container>) {
        self.names.insert(container.fixed.name.clone(), container.fixed.id.clone());
        self.containers.insert(container.fixed.id.clone(), container);
    }

    /// Forgets a container, or the name kept for one that could not be made.
    pub(crate) fn remove(&mut self, id: &str) {
        self.containers.remove(id);
        self.names.retain(|_, holder| holder != id);
    }

    /// Finds a container by id, by name (a slash before it is fine), or by the beginning of an id.
    pub(crate) fn find(&self, wanted: &str) -> Result<Arc<Container>, Fault> {
        let missing = || Fault::not_found(format!("No such container: {wanted}"));
        let name = wanted.strip_prefix('/').unwrap_or(wanted);
        let id = self.names.get(name).map_or(name, String::as_str);
        if let Some(container) = self.containers.get(id) {
            return Ok(Arc::clone(container));
        }
        if name.is_empty() {
            return Err(missing());
        }
        let after = self.containers.range(name.to_owned()..);
        let mut fitting = after.take_while(|(id, _)| id.starts_with(name));
        let (_, first) = fitting.next().ok_or_else(missing)?;
        if fitting.next().is_some() {
            return Err(Fault::invalid(format!(
                "Multiple IDs found with provided prefix: {wanted}"
            )));
        }
        Ok(Arc::clone(first))
    }

    /// The container of exactly this id, for ids that others choose: theirs may look like a name.
    pub(crate) fn of_id(&self, id: &str) -> Option<Arc<Container>> {
        self.containers.get(id).map(Arc::clone)
    }

    pub(crate) fn all(&self) -> Vec<Arc<Container>> {
        self.containers.values().map(Arc::clone).collect()
    }
}
