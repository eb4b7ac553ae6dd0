//! `extends`: a service over another one, of the same file or of another.

use crate::assemble::{Assembly, Place};
use crate::fields::Fields;
use crate::merge;
use crate::paths;
use crate::scalar::text;
use crate::tree::{Node, Value};
use std::path::{Path, PathBuf};

/// The services that one extends, one after the other.
const CHAIN_MAX: usize = 32;

/// The services that may be extended by their names alone.
struct Scope<'a> {
    /// The whole file.
    root: &'a Node,
    /// What earlier files have.
    before: Option<&'a Node>,
    place: &'a Place<'a>,
    /// The file, where it is not one that the user named.
    file: Option<&'a Path>,
}

/// The services that led here, each with its file as in [`Scope`].
type Chain = Vec<(Option<PathBuf>, String)>;

impl<'a> Scope<'a> {
    fn service(&self, name: &str) -> Option<&'a Node> {
        let of = |root: &'a Node| root.child("services")?.child(name);
        of(self.root).or_else(|| of(self.before?))
    }
}

impl Assembly<'_> {
    /// Puts every service of a file over the one that it extends.
    pub(crate) fn extend(&mut self, root: &mut Node, before: Option<&Node>, place: &Place<'_>) {
        let Some(Value::Map(services)) = root.child("services").map(|services| &services.value)
        else {
            return;
        };
        let mut services = services.clone();
        let scope = Scope { root, before, place, file: None };
        for entry in &mut services {
            let mut chain = vec![(None, entry.key.clone())];
            entry.node = self.extended(&entry.node, &scope, &mut chain);
        }
        let Value::Map(entries) = &mut root.value else { return };
        if let Some(found) = entries.iter_mut().find(|entry| entry.key == "services") {
            found.node.value = Value::Map(services);
        }
    }

    /// A service over the one that it extends, over the one that that extends.
    fn extended(&mut self, service: &Node, scope: &Scope<'_>, chain: &mut Chain) -> Node {
        let mut own = service.clone();
        let Value::Map(all) = &mut own.value else { return own };
        let Some(at) = all.iter().position(|entry| entry.key == "extends") else { return own };
        let named = all.remove(at).node;
        if let Some(base) = self.base(&named, scope, chain) {
            return merge::services(merge::settled(base), own);
        }
        own
    }

    /// The service that `extends` names, with what it extends itself.
    fn base(&mut self, named: &Node, scope: &Scope<'_>, chain: &mut Chain) -> Option<Node> {
        let (name, file) = match &named.value {
            Value::Map(_) => {
                let mut fields = Fields::of(named, self.log);
                let mut take = |key| fields.take(key).map(|node| text(node, self.log));
                let (name, file) = (take("service"), take("file"));
                fields.finish(self.log);
                (name, file)
            }
            Value::Null
            | Value::Bool(_)
            | Value::Int(_)
            | Value::Float(_)
            | Value::Text(_)
            | Value::List(_) => (Some(text(named, self.log)), None),
        };
        let Some(name) = name.filter(|name| !name.is_empty()) else {
            self.log.error(named, "needs the name of a service");
            return None;
        };
        let path = file.map(|file| paths::absolute(&scope.place.folder, &file));
        let link = (path.clone().or(scope.file.map(Path::to_owned)), name.clone());
        if chain.contains(&link) {
            self.log.error(named, format!("{name} extends itself"));
            return None;
        }
        if chain.len() == CHAIN_MAX {
            self.log.error(named, format!("more than {CHAIN_MAX} services extend one another"));
            return None;
        }
        chain.push(link);
        let Some(path) = path else { return self.of(named, &name, scope, chain) };
        let (shown, text) = self.read(named, &path)?;
        let folder = path.parent().unwrap_or(Path::new("/")).to_owned();
        let place = Place { folder, ..scope.place.clone() };
        let root = self.parse(&shown, &text, &place)?;
        let scope = Scope { root: &root, before: None, place: &place, file: Some(&path) };
        self.of(named, &name, &scope, chain)
    }

    fn of(
        &mut self,
        named: &Node,
        name: &str,
        scope: &Scope<'_>,
        chain: &mut Chain,
    ) -> Option<Node> {
        let Some(base) = scope.service(name) else {
            self.log.error(named, format!("there is no service {name:?} to extend"));
            return None;
        };
        Some(self.extended(base, scope, chain))
    }
}
