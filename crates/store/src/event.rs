//! What a change means to whoever follows the cluster: something was created, updated or removed.
//!
//! Only of objects that users have and Docker tells of, and never what is in them: names, and Docker's
//! attributes of what is now otherwise. Tasks and the cluster itself are not among them.

use crate::{Change, Key, Object};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use types::{Network, Node, Service, ServiceMode, Timestamp, Version};

/// Bytes of an attribute that are told.
const TEXT_MAX: usize = 512;

/// Docker's attributes, e.g. `replicas.old`.
pub type Attributes = BTreeMap<String, String>;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    Create,
    Update,
    Remove,
}

impl Action {
    /// Docker's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Update => "update",
            Self::Remove => "remove",
        }
    }
}

/// Something that has happened to an object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When its entry of the log was made; a little later where something else has that very moment.
    /// No two events have the same.
    pub time: Timestamp,
    /// The entry of the log: what was created or updated has this version.
    pub version: Version,
    pub key: Key,
    pub action: Action,
    /// The object's, `name` among them.
    pub attributes: Attributes,
}

/// What a change does to the object that it is about, of which `before` is what was there.
pub(crate) fn meaning(before: Option<&Object>, change: &Change) -> Option<(Action, Attributes)> {
    match change {
        Change::Put(object) => put(before, object),
        Change::Remove(_) => match before? {
            // Nothing is told of one that users have removed before.
            Object::Network(network) if network.removed => None,
            object => Some((Action::Remove, named(name(object)?))),
        },
    }
}

fn put(before: Option<&Object>, object: &Object) -> Option<(Action, Attributes)> {
    let mut attributes = named(name(object)?);
    let action = match (before, object) {
        (None, Object::Network(network)) if network.removed => return None,
        (None, _) => Action::Create,
        (Some(Object::Network(was)), Object::Network(is)) => match (was.removed, is.removed) {
            (true, _) => return None,
            (false, true) => Action::Remove,
            (false, false) if is_same_to_users(was, is) => return None,
            (false, false) => Action::Update,
        },
        (Some(Object::Node(was)), Object::Node(is)) if notes_alone_differ(was, is) => return None,
        (Some(Object::Node(was)), Object::Node(is)) => {
            node(was, is, &mut attributes);
            Action::Update
        }
        (Some(Object::Service(was)), Object::Service(is)) => {
            service(was, is, &mut attributes);
            Action::Update
        }
        (Some(_), _) => Action::Update,
    };
    Some((action, attributes))
}

/// That a manager's node leads now, or does not any more.
pub(crate) fn leads(node: &Arc<Node>, leads: bool) -> Attributes {
    let name = name(&Object::Node(Arc::clone(node))).map(named);
    let mut attributes = name.unwrap_or_default();
    note(&mut attributes, "leader", (!leads, leads), |it| it.to_string());
    attributes
}

fn named(name: &str) -> Attributes {
    Attributes::from([("name".to_owned(), short(name.to_owned()))])
}

/// As many events are remembered, a node must not fill the memory by what it calls itself.
fn short(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(TEXT_MAX));
    text
}

/// What users call it; `None` for what is not told.
fn name(object: &Object) -> Option<&str> {
    match object {
        Object::Node(node) if node.spec.name.is_empty() => Some(&node.description.hostname),
        Object::Node(node) => Some(&node.spec.name),
        Object::Network(network) => Some(&network.spec.name),
        Object::Service(service) => Some(&service.spec.name),
        Object::Secret(secret) => Some(&secret.spec.name),
        Object::Config(config) => Some(&config.spec.name),
        Object::Cluster(_) | Object::Task(_) => None,
    }
}

/// Says whether only the allocator's own notes differ: with each address that it hands out they do.
fn is_same_to_users(was: &Network, is: &Network) -> bool {
    let same = Network {
        meta: was.meta,
        last_addresses: was.last_addresses,
        last_vni: was.last_vni,
        ..is.clone()
    };
    same == *was
}

/// Says whether only what managers note of a node for themselves differs: a node that says another
/// trouble with every report must not push out what others did.
fn notes_alone_differ(was: &Node, is: &Node) -> bool {
    let same = Node {
        meta: was.meta,
        trouble: was.trouble.clone(),
        allocation_error: was.allocation_error.clone(),
        ingress_addresses: was.ingress_addresses,
        ..is.clone()
    };
    same == *was
}

/// Notes what was and what is, where that is not the same.
fn note<T: PartialEq>(
    attributes: &mut Attributes,
    what: &str,
    (was, is): (T, T),
    word: fn(T) -> String,
) {
    if was != is {
        attributes.insert(format!("{what}.old"), short(word(was)));
        attributes.insert(format!("{what}.new"), short(word(is)));
    }
}

fn node(was: &Node, is: &Node, attributes: &mut Attributes) {
    let availability = (was.spec.availability, is.spec.availability);
    note(attributes, "availability", availability, |it| it.as_str().to_owned());
    note(attributes, "role", (was.role, is.role), |it| it.as_str().to_owned());
    note(attributes, "state", (was.status.state, is.status.state), |it| it.as_str().to_owned());
}

fn service(was: &Service, is: &Service, attributes: &mut Attributes) {
    let image = |service: &Service| service.spec.task.container.image.clone();
    note(attributes, "image", (image(was), image(is)), |image| image);
    if let (ServiceMode::Replicated { replicas: was }, ServiceMode::Replicated { replicas: is }) =
        (was.spec.mode, is.spec.mode)
    {
        note(attributes, "replicas", (was, is), |count| count.to_string());
    }
    let state = |service: &Service| service.update.as_ref().map(|update| update.state);
    match (state(was), state(is)) {
        (None, Some(is)) => {
            attributes.insert("updatestate.new".to_owned(), is.as_str().to_owned());
        }
        (Some(was), Some(is)) => {
            note(attributes, "updatestate", (was, is), |it| it.as_str().to_owned());
        }
        (_, None) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use types::Availability;

    fn told(was: &Node, is: &Node) -> Option<(Action, Attributes)> {
        let object = |node: &Node| Object::Node(Arc::new(node.clone()));
        put(Some(&object(was)), &object(is))
    }

    #[test]
    fn a_node_pushes_nothing_out_by_what_it_says_of_itself() {
        let was = Node::default();
        let mut is = Node { trouble: "another one".to_owned(), ..was.clone() };
        assert_eq!(told(&was, &is), None);
        is.spec.availability = Availability::Drain;
        is.description.hostname = "\u{e9}".repeat(1 << 19);
        let (action, attributes) = told(&was, &is).unwrap();
        assert_eq!((action, attributes["availability.new"].as_str()), (Action::Update, "drain"));
        assert_eq!(attributes["name"].len(), TEXT_MAX);
    }
}
