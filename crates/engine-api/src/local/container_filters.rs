//! Which containers a list shows.

use super::time::Bounds;
use crate::Api;
use crate::json::container::{is_on, port_items};
use crate::json::container_options::protocol_of;
use crate::request::table::filters::{Filters, Wanted};
use engine::{ContainerInfo, Image, Status};
use serde_json::Value;
use std::collections::BTreeSet;
use types::Fault;

/// What filters name beside the container itself.
#[derive(Debug, Default)]
pub(super) struct Named {
    is_task: Option<bool>,
    bounds: Bounds,
    /// Ids of the images that `ancestor` names, and of those that are made from them.
    images: BTreeSet<String>,
    exposed: Vec<Ports>,
    published: Vec<Ports>,
    exit_codes: Vec<i32>,
}

/// Ports from the first to the last, of one protocol.
#[derive(Debug, PartialEq, Eq)]
struct Ports {
    first: u16,
    last: u16,
    protocol: String,
}

impl Ports {
    /// Reads `PORT[-PORT][/PROTOCOL]`.
    fn parse(filter: &str, text: &str) -> Result<Self, Fault> {
        let wrong = || Fault::invalid(format!("invalid filter '{filter}={text}'"));
        let (range, protocol) = protocol_of(text);
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let number = |text: &str| text.parse::<u16>().map_err(|_invalid| wrong());
        let (first, last) = (number(first)?, number(last)?);
        if last < first || !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
            return Err(wrong());
        }
        Ok(Self { first, last, protocol })
    }

    fn has(&self, item: &Value, port: &str) -> bool {
        let number = item[port].as_u64().and_then(|number| u16::try_from(number).ok());
        number.is_some_and(|number| (self.first..=self.last).contains(&number))
            && item["Type"] == self.protocol
    }
}

impl Named {
    pub(super) async fn find(api: &Api, filters: &Filters) -> Result<Self, Fault> {
        let values = |name| filters.get(name).into_iter().flat_map(Wanted::values);
        let ports = |name| {
            values(name).map(|text| Ports::parse(name, text)).collect::<Result<Vec<_>, Fault>>()
        };
        let code = |text: &str| {
            text.parse()
                .map_err(|_invalid| Fault::invalid(format!("invalid filter 'exited={text}'")))
        };
        let mut named = Self {
            is_task: filters.flag("is-task")?,
            exposed: ports("expose")?,
            published: ports("publish")?,
            exit_codes: values("exited").map(code).collect::<Result<_, _>>()?,
            ..Self::default()
        };
        for id in values("before") {
            named.bounds.before(api.engine.inspect(id).await?.created);
        }
        for id in values("since") {
            named.bounds.since(api.engine.inspect(id).await?.created);
        }
        if filters.has("ancestor") {
            let all = api.engine.images().await?;
            for name in values("ancestor") {
                // One that is not there is nobody's ancestor.
                if let Ok(image) = api.engine.image(name).await {
                    named.images.extend(family(&image, &all));
                }
            }
        }
        Ok(named)
    }
}

/// The ids of an image and of those that are made from it: they begin with all its layers.
fn family(image: &Image, all: &[Image]) -> BTreeSet<String> {
    let layers =
        |image: &Image| image.config["rootfs"]["diff_ids"].as_array().cloned().unwrap_or_default();
    let own = layers(image);
    let is_child = |other: &&Image| {
        let layers = layers(other);
        !own.is_empty() && own.len() < layers.len() && layers.starts_with(&own)
    };
    let children = all.iter().filter(is_child).map(|child| child.id.clone());
    children.chain([image.id.clone()]).collect()
}

/// The containers that filters ask for. `id` is the beginning of one container's id alone.
pub(super) fn choose<'a>(
    containers: &'a [ContainerInfo],
    filters: &Filters,
    named: &Named,
) -> Vec<&'a ContainerInfo> {
    let only_one = |id: &str| containers.iter().filter(|it| it.id.starts_with(id)).count() == 1;
    let fits = |info: &&ContainerInfo| {
        matches(info, filters, named)
            && filters
                .get("id")
                .is_none_or(|ids| ids.any(|id| info.id.starts_with(id) && only_one(id)))
    };
    containers.iter().filter(fits).collect()
}

fn matches(info: &ContainerInfo, filters: &Filters, named: &Named) -> bool {
    let (state, labels) = (&info.state, &info.merged.labels);
    let ports = || {
        let items = port_items(info);
        items.iter().any(|item| {
            named.published.iter().any(|ports| ports.has(item, "PublicPort"))
                || named.exposed.iter().any(|ports| ports.has(item, "PrivatePort"))
        })
    };
    filters.all(|name, wanted| match name {
        // All containers are needed to tell: see `choose`.
        "id" => true,
        "name" => wanted.fits(&info.name) || wanted.fits(&format!("/{}", info.name)),
        "status" => wanted.is(state.status.as_str()),
        "exited" => {
            state.status == Status::Exited
                && 0 < state.starts
                && named.exit_codes.contains(&state.exit_code)
        }
        "health" => {
            wanted.is(state.health.as_ref().map_or("none", |health| health.status.as_str()))
        }
        "ancestor" => named.images.contains(&info.image),
        "label" => wanted.labels(labels),
        "is-task" => Some(info.config.task().is_some()) == named.is_task,
        "isolation" => wanted.is("default"),
        "network" => wanted.any(|network| is_on(info, network)),
        "volume" => wanted.any(|volume| {
            let mut mounts = info.mounts.iter().map(|point| &point.mount);
            mounts.any(|mount| mount.source == volume || mount.target == volume)
        }),
        // Either of both is enough, as with Docker.
        "expose" | "publish" => ports(),
        "before" | "since" => named.bounds.holds(info.created),
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::{ContainerConfig, ContainerState, HostPort, Merged, NetworkMode};
    use serde_json::json;
    use types::Protocol;

    fn container(id: &str, name: &str) -> ContainerInfo {
        let web = HostPort { protocol: Protocol::Tcp, published: 8080, target: 80 };
        ContainerInfo {
            id: id.to_owned(),
            name: name.to_owned(),
            image: "sha256:1".to_owned(),
            config: ContainerConfig { host_ports: vec![web], ..ContainerConfig::default() },
            merged: Merged {
                labels: [("of".to_owned(), "image".to_owned())].into(),
                exposed_ports: ["53/udp".to_owned()].into(),
                ..Merged::default()
            },
            state: ContainerState { status: Status::Running, ..ContainerState::default() },
            ..ContainerInfo::default()
        }
    }

    fn found(filter: &str, value: &str) -> Vec<String> {
        let all = [container("ab1", "web-1"), container("ab2", "web-2"), container("c", "db")];
        let text = json!({ filter: [value] }).to_string();
        let filters = Filters::parse(Some(&text), "GET /containers/json").unwrap();
        let ports = |name| {
            let values = filters.get(name).into_iter().flat_map(Wanted::values);
            values.map(|text| Ports::parse(name, text).unwrap()).collect()
        };
        let named =
            Named { exposed: ports("expose"), published: ports("publish"), ..Named::default() };
        choose(&all, &filters, &named).iter().map(|info| info.name.clone()).collect()
    }

    #[test]
    fn containers_are_found_as_docker_finds_them() {
        let all = ["web-1", "web-2", "db"];
        for (filter, value, names) in [
            ("name", "web", &all[..2]),
            ("name", "^web-2$", &all[1..2]),
            ("name", "^/web-1", &all[..1]),
            ("name", "e.-2", &all[1..2]),
            ("id", "ab1", &all[..1]),
            // Of more than one, none is meant; nor is an id a pattern.
            ("id", "ab", &all[..0]),
            ("id", "b1", &all[..0]),
            ("label", "of=image", &all[..]),
            ("publish", "8080", &all[..]),
            ("publish", "8000-8080/tcp", &all[..]),
            ("publish", "8000-8080/TCP", &all[..]),
            ("publish", "8080/udp", &all[..0]),
            ("publish", "80", &all[..0]),
            ("expose", "80", &all[..]),
            ("expose", "53/udp", &all[..]),
            ("network", "bridge", &all[..]),
            ("network", "bridg", &all[..0]),
        ] {
            assert_eq!(found(filter, value), names, "{filter}={value}");
        }
        for odd in ["x", "1-", "9-8", "80/icmp", ":80"] {
            assert!(Ports::parse("publish", odd).is_err(), "{odd}");
        }
    }

    #[test]
    fn a_copy_of_a_tasks_container_is_no_tasks() {
        let labels = [(types::TASK_LABEL.to_owned(), "t1".to_owned())];
        let found = |network| {
            let mut container = container("ab1", "web-1");
            container.config.network = network;
            container.config.spec.labels = labels.clone().into();
            let named = Named { is_task: Some(true), ..Named::default() };
            let filters = Filters::parse(Some(r#"{"is-task":["true"]}"#), "GET /containers/json");
            choose(&[container], &filters.unwrap(), &named).len()
        };
        assert_eq!([found(NetworkMode::Attached), found(NetworkMode::Bridge)], [1, 0]);
    }

    #[test]
    fn an_image_is_the_ancestor_of_those_that_have_its_layers_and_more() {
        let image = |id: &str, layers: &[&str]| Image {
            id: id.to_owned(),
            config: json!({ "rootfs": { "diff_ids": layers } }),
            ..Image::default()
        };
        let all = [
            image("base", &["1"]),
            image("child", &["1", "2"]),
            image("twin", &["1"]),
            image("other", &["2", "1"]),
            image("empty", &[]),
        ];
        let ids = |image| family(image, &all).into_iter().collect::<Vec<_>>();
        assert_eq!(ids(&all[0]), ["base", "child"]);
        assert_eq!(ids(&all[1]), ["child"]);
        assert_eq!(ids(&all[4]), ["empty"]);
    }
}
