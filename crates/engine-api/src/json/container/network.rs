//! Networks and ports of a container.

use super::super::network::{derived_id, local_id};
use super::super::node_access::CONTAINER;
use engine::{ContainerConfig, ContainerInfo, HostPort, NetworkMode, Place, Status};
use ipnet::IpNet;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::net::IpAddr;
use types::Subnet;

/// The network of a container that is on none of the cluster's.
fn network_name(network: &NetworkMode) -> &'static str {
    match network {
        NetworkMode::Bridge | NetworkMode::Attached => "bridge",
        NetworkMode::Host => "host",
        NetworkMode::None => "none",
    }
}

/// How a container is connected, as it is asked for.
pub(super) fn network_mode(config: &ContainerConfig) -> String {
    match config.node.joined.network.as_str() {
        "" => network_name(&config.network).to_owned(),
        other => format!("{CONTAINER}{other}"),
    }
}

/// Says whether a container is on a network, by the network's name or the beginning of its id.
pub(crate) fn is_on(info: &ContainerInfo, wanted: &str) -> bool {
    let is = |name: &str, id: &str| name == wanted || id.starts_with(wanted);
    if !info.config.node.joined.network.is_empty() {
        return false;
    }
    if info.state.places.is_empty() {
        let name = network_name(&info.config.network);
        return is(name, &local_id(name));
    }
    info.state.places.iter().any(|place| is(&place.name, place.network.as_str()))
}

/// Where a container is on one network. Addresses are there while it runs.
#[derive(Debug, Default)]
struct Endpoint {
    id: String,
    v4: Option<IpAddr>,
    v4_prefix: u8,
    gateway: Option<IpAddr>,
    v6: Option<IpAddr>,
    v6_prefix: u8,
    v6_gateway: Option<IpAddr>,
    mac: String,
}

fn text(address: Option<IpAddr>) -> String {
    address.map(|address| address.to_string()).unwrap_or_default()
}

/// A hardware address as people write it.
pub(crate) fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

impl Endpoint {
    /// Renders the fields that are also shown of the bridge beside all networks.
    fn render(&self) -> Map<String, Value> {
        let fields = [
            ("EndpointID", json!(self.id)),
            ("Gateway", json!(text(self.gateway))),
            ("GlobalIPv6Address", json!(text(self.v6))),
            ("GlobalIPv6PrefixLen", json!(self.v6_prefix)),
            ("IPAddress", json!(text(self.v4))),
            ("IPPrefixLen", json!(self.v4_prefix)),
            ("IPv6Gateway", json!(text(self.v6_gateway))),
            ("MacAddress", json!(self.mac)),
        ];
        fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    /// Renders it as one of a container's networks.
    fn render_whole(&self, network: &str, place: Option<&Place>) -> Value {
        let runs = !self.id.is_empty();
        let asked = place.filter(|_| runs).map(|_| json!({ "IPv4Address": text(self.v4) }));
        let names = place.map(|place| &place.names).filter(|names| !names.is_empty());
        let mut fields = Map::from_iter([
            ("IPAMConfig".to_owned(), json!(asked)),
            ("Links".to_owned(), Value::Null),
            // The names beside the container's own.
            (
                "Aliases".to_owned(),
                json!(names.and_then(|names| names.get(1..)).filter(|it| !it.is_empty())),
            ),
            ("DriverOpts".to_owned(), Value::Null),
            ("GwPriority".to_owned(), json!(0)),
            ("NetworkID".to_owned(), json!(network)),
        ]);
        fields.extend(self.render());
        fields.insert("DNSNames".to_owned(), json!(names));
        Value::Object(fields)
    }
}

/// The id of a container's place on a network: it has none of its own.
pub(crate) fn endpoint_id(container: &str, network: &str) -> String {
    derived_id(&format!("{container} {network}"))
}

fn runs(info: &ContainerInfo) -> bool {
    info.state.status == Status::Running
}

/// A container's place on a network of the node's own.
fn own_endpoint(info: &ContainerInfo, network: &str, bridge: Option<IpNet>) -> Endpoint {
    if !runs(info) {
        return Endpoint::default();
    }
    let id = endpoint_id(&info.id, network);
    let Some(address) = info.address else { return Endpoint { id, ..Endpoint::default() } };
    Endpoint {
        id,
        v4: Some(address.into()),
        v4_prefix: bridge.map_or(32, |bridge| bridge.prefix_len()),
        gateway: bridge.and_then(|bridge| bridge.hosts().next()),
        mac: mac_text(types::mac_of(address.into())),
        ..Endpoint::default()
    }
}

/// A container's place on a network of the cluster.
fn endpoint(info: &ContainerInfo, place: &Place) -> Endpoint {
    if !runs(info) {
        return Endpoint::default();
    }
    let of = |address: Option<IpAddr>| {
        let is_in = |subnet: &&Subnet| address.is_some_and(|it| subnet.net.contains(&it));
        let subnet = address.and_then(|_| place.subnets.iter().find(is_in));
        subnet.map_or(0, |subnet| subnet.net.prefix_len())
    };
    let (v4, v6) = (place.addresses.v4.map(IpAddr::V4), place.addresses.v6.map(IpAddr::V6));
    Endpoint {
        id: endpoint_id(&info.id, place.network.as_str()),
        v4,
        v4_prefix: of(v4),
        v6,
        v6_prefix: of(v6),
        mac: place.addresses.mac().map(mac_text).unwrap_or_default(),
        // The way out is the gateway bridge's.
        ..Endpoint::default()
    }
}

/// Renders `NetworkSettings.Networks`. `bridge` is the subnet of the gateway bridge.
pub(crate) fn networks(info: &ContainerInfo, bridge: Option<IpNet>) -> Value {
    let places = &info.state.places;
    if !info.config.node.joined.network.is_empty() {
        return json!({});
    }
    if places.is_empty() {
        let name = network_name(&info.config.network);
        let network = local_id(name);
        return json!({ name: own_endpoint(info, &network, bridge).render_whole(&network, None) });
    }
    let all = places.iter().map(|place| {
        let shown = endpoint(info, place).render_whole(place.network.as_str(), Some(place));
        (place.name.clone(), shown)
    });
    Value::Object(all.collect())
}

/// Says whether a container has ports of its own.
fn has_ports(info: &ContainerInfo) -> bool {
    runs(info) && matches!(info.config.network, NetworkMode::Bridge | NetworkMode::Attached)
}

/// A port with where it is published: nowhere, for one that is only exposed.
fn ports(info: &ContainerInfo) -> BTreeMap<String, Vec<&HostPort>> {
    let mut all = BTreeMap::new();
    if has_ports(info) {
        all.extend(info.merged.exposed_ports.iter().map(|port| (port.clone(), Vec::new())));
        for port in &info.config.host_ports {
            let key = format!("{}/{}", port.target, port.protocol.as_str());
            all.entry(key).or_default().push(port);
        }
    }
    all
}

/// Renders ports as `docker ps` shows them.
pub(crate) fn port_items(info: &ContainerInfo) -> Vec<Value> {
    let mut items = Vec::new();
    for (port, published) in ports(info) {
        let (number, protocol) = port.split_once('/').unwrap_or((&port, "tcp"));
        let Ok(number) = number.parse::<u16>() else { continue };
        if published.is_empty() {
            items.push(json!({ "PrivatePort": number, "Type": protocol }));
        }
        for binding in published {
            items.push(json!({
                "IP": "0.0.0.0",
                "PrivatePort": number,
                "PublicPort": binding.published,
                "Type": protocol,
            }));
        }
    }
    items
}

/// Renders `NetworkSettings.Ports`: `{"80/tcp": [{"HostIp": …, "HostPort": …}], "90/tcp": null}`.
fn port_map(info: &ContainerInfo) -> Value {
    let binding =
        |port: &&HostPort| json!({ "HostIp": "0.0.0.0", "HostPort": port.published.to_string() });
    let entries = ports(info).into_iter().map(|(port, published)| {
        let bindings: Vec<Value> = published.iter().map(binding).collect();
        (port, json!(Some(bindings).filter(|bindings| !bindings.is_empty())))
    });
    Value::Object(entries.collect())
}

/// Renders `NetworkSettings`.
pub(super) fn network_settings(info: &ContainerInfo, bridge: Option<IpNet>) -> Value {
    let on_bridge = info.state.places.is_empty() && info.address.is_some();
    let own = if on_bridge {
        own_endpoint(info, &local_id("bridge"), bridge)
    } else {
        Endpoint::default()
    };
    let mut settings = Map::from_iter([
        ("Bridge".to_owned(), json!("")),
        // A sandbox goes by its container's id.
        ("SandboxID".to_owned(), json!(if info.netns.is_some() { info.id.as_str() } else { "" })),
        ("SandboxKey".to_owned(), json!(info.netns.clone().unwrap_or_default())),
        ("Ports".to_owned(), port_map(info)),
        ("HairpinMode".to_owned(), json!(false)),
        ("LinkLocalIPv6Address".to_owned(), json!("")),
        ("LinkLocalIPv6PrefixLen".to_owned(), json!(0)),
        ("SecondaryIPAddresses".to_owned(), Value::Null),
        ("SecondaryIPv6Addresses".to_owned(), Value::Null),
    ]);
    settings.extend(own.render());
    settings.insert("Networks".to_owned(), networks(info, bridge));
    Value::Object(settings)
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::{ContainerConfig, ContainerState, Merged};
    use types::{Addresses, Protocol};

    fn running(network: NetworkMode, places: Vec<Place>) -> ContainerInfo {
        let web = HostPort { protocol: Protocol::Tcp, published: 8080, target: 80 };
        let exposed = ["80/tcp", "53/udp"].map(str::to_owned).into();
        ContainerInfo {
            id: "c".repeat(64),
            config: ContainerConfig {
                network,
                host_ports: vec![web],
                ..ContainerConfig::default()
            },
            merged: Merged { exposed_ports: exposed, ..Merged::default() },
            state: ContainerState { status: Status::Running, places, ..ContainerState::default() },
            address: Some([172, 31, 0, 5].into()),
            ..ContainerInfo::default()
        }
    }

    fn place() -> Place {
        let net = "10.0.1.0/24".parse().unwrap();
        Place {
            network: "net1".into(),
            name: "shop_default".into(),
            subnets: vec![Subnet { net, gateway: "10.0.1.1".parse().unwrap() }],
            addresses: Addresses { v4: Some([10, 0, 1, 3].into()), v6: None },
            names: vec!["shop_web.1.t1".into(), "db".into()],
            ..Place::default()
        }
    }

    #[test]
    fn a_container_of_a_task_is_shown_on_the_clusters_networks() {
        let mut info = running(NetworkMode::Attached, vec![place()]);
        let shown = networks(&info, "172.31.0.0/16".parse().ok());
        assert_eq!(shown.as_object().unwrap().len(), 1);
        let shown = &shown["shop_default"];
        for (field, value) in [
            ("NetworkID", json!("net1")),
            ("IPAddress", json!("10.0.1.3")),
            ("IPPrefixLen", json!(24)),
            ("MacAddress", json!("02:42:0a:00:01:03")),
            ("Aliases", json!(["db"])),
            ("DNSNames", json!(["shop_web.1.t1", "db"])),
            ("IPAMConfig", json!({ "IPv4Address": "10.0.1.3" })),
        ] {
            assert_eq!(shown[field], value, "{field}");
        }
        assert_eq!(shown["EndpointID"].as_str().unwrap().len(), 64);
        assert!(is_on(&info, "shop_default") && is_on(&info, "net"));
        assert!(!is_on(&info, "bridge") && !is_on(&info, "shop"));
        // One that has ended is on it all the same, without an address.
        info.state.status = Status::Exited;
        let shown = networks(&info, None);
        assert_eq!(shown["shop_default"]["IPAddress"], "");
        assert_eq!(shown["shop_default"]["NetworkID"], "net1");
    }

    #[test]
    fn a_plain_container_is_shown_on_the_bridge() {
        let info = running(NetworkMode::Bridge, Vec::new());
        let shown = network_settings(&info, "172.31.0.0/16".parse().ok());
        for place in [&shown, &shown["Networks"]["bridge"]] {
            assert_eq!(place["IPAddress"], "172.31.0.5");
            assert_eq!(
                (&place["Gateway"], &place["IPPrefixLen"]),
                (&"172.31.0.1".into(), &16.into())
            );
            assert_eq!(place["MacAddress"], "02:42:ac:1f:00:05");
        }
        assert_eq!(shown["Networks"]["bridge"]["Aliases"], Value::Null);
        assert!(is_on(&info, "bridge") && is_on(&info, &local_id("bridge")[..12]));
    }

    #[test]
    fn ports_that_are_only_exposed_are_shown_beside_those_that_are_published() {
        let mut info = running(NetworkMode::Bridge, Vec::new());
        let published = json!([{ "HostIp": "0.0.0.0", "HostPort": "8080" }]);
        assert_eq!(port_map(&info), json!({ "53/udp": null, "80/tcp": published }));
        let items = json!([
            { "PrivatePort": 53, "Type": "udp" },
            { "IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp" },
        ]);
        assert_eq!(json!(port_items(&info)), items);
        info.config.network = NetworkMode::Host;
        assert_eq!(port_map(&info), json!({}));
        info.config.network = NetworkMode::Bridge;
        info.state.status = Status::Exited;
        assert_eq!((port_map(&info), port_items(&info).len()), (json!({}), 0));
    }
}
