//! What is told of the networks and volumes of a container when it starts and ends, as Docker does.

use crate::config::NetworkMode;
use crate::container::Container;
use crate::events::{EventKind, Events};
use std::collections::BTreeMap;
use types::MountKind;

/// The container has its networks and volumes.
pub(crate) fn taken(container: &Container, events: &Events) {
    networks(container, events, "connect");
    for (name, attributes) in volumes(container) {
        events.tell(EventKind::Volume, "mount", &name, attributes);
    }
}

/// It has them no more.
pub(crate) fn let_go(container: &Container, events: &Events) {
    networks(container, events, "disconnect");
    for (name, mut attributes) in volumes(container) {
        attributes.retain(|name, _| matches!(name.as_str(), "container" | "driver"));
        events.tell(EventKind::Volume, "unmount", &name, attributes);
    }
}

fn networks(container: &Container, events: &Events, action: &str) {
    let state = container.state.borrow();
    let places = state.places.iter().map(|it| (it.network.as_str(), it.name.as_str(), "overlay"));
    let own = match container.fixed.config.network {
        NetworkMode::Bridge if state.places.is_empty() => Some(("bridge", "bridge", "bridge")),
        NetworkMode::Host => Some(("host", "host", "host")),
        NetworkMode::None => Some(("none", "none", "null")),
        NetworkMode::Bridge | NetworkMode::Attached => None,
    };
    for (id, name, kind) in places.chain(own) {
        let attributes = [("container", container.id()), ("name", name), ("type", kind)];
        events.tell(EventKind::Network, action, id, owned(attributes));
    }
}

/// Names of its volumes, with all that is told of them.
fn volumes(container: &Container) -> impl Iterator<Item = (String, BTreeMap<String, String>)> {
    let points = container.fixed.mounts.iter();
    let volumes = points.filter(|point| point.mount.kind == MountKind::Volume);
    volumes.map(|point| {
        let mount = &point.mount;
        let attributes = [
            ("container", container.id()),
            ("destination", mount.target.as_str()),
            ("driver", point.driver()),
            ("propagation", ""),
            ("read/write", if mount.read_only { "false" } else { "true" }),
        ];
        (mount.source.clone(), owned(attributes))
    })
}

fn owned<const N: usize>(attributes: [(&str, &str); N]) -> BTreeMap<String, String> {
    attributes.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
}
