//! Networks: the stack's own, and the wishes of services to be on them.

use crate::Around;
use crate::fields::{Fields, entries, items};
use crate::project::{StackNetwork, StackPart, stack_labels};
use crate::remark::Log;
use crate::scalar::{boolean, labels, strings, text};
use crate::service::Stage;
use crate::tree::{Node, Value};
use ipnet::{IpNet, Ipv4Net};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use types::{NetworkAttachment, NetworkSpec, NodeNetwork, PublishedPort, Subnet, check_name};

/// The network of services that name none.
const DEFAULT: &str = "default";
const NO_IPV6: &str = "IPv6 networks are not supported by skep yet";

/// Networks by their names in the file.
pub(crate) type Networks = BTreeMap<String, StackNetwork>;

/// Reads the top-level `networks`.
pub(crate) fn networks(node: &Node, around: &Around<'_>, log: &mut Log) -> Networks {
    entries(node, log)
        .iter()
        .map(|entry| (entry.key.clone(), network(&entry.key, &entry.node, around, log)))
        .collect()
}

fn network(key: &str, node: &Node, around: &Around<'_>, log: &mut Log) -> StackNetwork {
    let mut fields = Fields::of(node, log);
    let part = StackPart::read(key, &mut fields, around, log);
    let mut network = plain(&part, around);
    let spec = &mut network.spec;
    if let Some(driver) = fields.take("driver") {
        let name = text(driver, log);
        if name != "overlay" && !part.external {
            log.error(driver, format!("the driver {name:?} is not supported by skep: use overlay"));
        }
    }
    if let Some(node) = fields.take("driver_opts") {
        spec.driver_options = labels(node, log);
        if let Err(fault) = spec.check_options() {
            log.error(node, fault.message);
        }
    }
    if let Some(node) = fields.take("attachable") {
        spec.attachable = boolean(node, log);
    }
    if let Some(node) = fields.take("internal") {
        spec.internal = boolean(node, log);
    }
    if let Some(node) = fields.take("labels") {
        spec.labels.extend(labels(node, log));
    }
    if let Some(node) = fields.take("enable_ipv6")
        && boolean(node, log)
    {
        log.error(node, NO_IPV6);
    }
    if let Some(node) = fields.take("ipam") {
        ipam(node, spec, log);
    }
    if !part.external
        && let Err(fault) = check_name(&spec.name)
    {
        log.error(node, format!("{:?}: {fault}", spec.name));
    }
    fields.finish(log);
    network
}

/// A network about which the file says nothing more.
fn plain(part: &StackPart, around: &Around<'_>) -> StackNetwork {
    let labels = if part.external {
        types::Labels::new()
    } else {
        stack_labels(part.labels.clone(), around)
    };
    let spec = NetworkSpec {
        name: part.name.clone(),
        labels,
        driver: "overlay".into(),
        ..NetworkSpec::default()
    };
    StackNetwork { spec, external: part.external }
}

fn ipam(node: &Node, spec: &mut NetworkSpec, log: &mut Log) {
    let mut fields = Fields::of(node, log);
    if let Some(driver) = fields.take("driver")
        && text(driver, log) != "default"
    {
        log.error(driver, "IPAM drivers other than default are not supported by skep");
    }
    fields.refuse(&[("options", "options of IPAM drivers are not supported by skep")], log);
    let config = fields.take("config");
    fields.finish(log);
    let Some(config) = config else { return };
    let items = items(config, log);
    if let Some(second) = items.get(1) {
        log.error(second, "a network with more than one subnet is not supported by skep yet");
    }
    if let Some(first) = items.first() {
        addresses(first, spec, log);
    }
}

fn addresses(node: &Node, spec: &mut NetworkSpec, log: &mut Log) {
    let mut fields = Fields::of(node, log);
    let (net, gateway) = (fields.take("subnet"), fields.take("gateway"));
    if let Some(node) = fields.take("ip_range") {
        match text(node, log).parse::<Ipv4Net>() {
            Ok(range) => spec.ip_ranges = vec![range.into()],
            Err(_) => log.error(node, "should be an IPv4 range such as 10.5.0.128/25"),
        }
    }
    if let Some(node) = fields.take("aux_addresses") {
        for (name, value) in labels(node, log) {
            match value.parse::<Ipv4Addr>() {
                Ok(address) => drop(spec.aux_addresses.insert(name, address.into())),
                Err(_) => log.error(node, format!("{name} should be an IPv4 address")),
            }
        }
    }
    fields.finish(log);
    spec.subnets = net.and_then(|net| subnet(net, gateway, log)).into_iter().collect();
    if let Err(fault) = spec.check_ipam() {
        log.error(node, fault.message);
    }
}

fn subnet(net_node: &Node, gateway: Option<&Node>, log: &mut Log) -> Option<Subnet> {
    let net = match text(net_node, log).parse() {
        Ok(IpNet::V4(net)) if (8..=29).contains(&net.prefix_len()) => net.trunc(),
        Ok(IpNet::V4(_)) => {
            log.error(net_node, "the prefix should be from /8 to /29");
            return None;
        }
        Ok(IpNet::V6(_)) => {
            log.error(net_node, NO_IPV6);
            return None;
        }
        Err(_) => {
            log.error(net_node, "should be an IPv4 subnet such as 10.5.0.0/24");
            return None;
        }
    };
    let gateway = match gateway {
        None => net.hosts().next(),
        Some(node) => {
            let gateway = text(node, log).parse().ok().filter(|gateway| net.contains(gateway));
            if gateway.is_none() {
                log.error(node, format!("should be an address in {net}"));
            }
            gateway
        }
    };
    gateway.map(|gateway| Subnet { net: net.into(), gateway: gateway.into() })
}

/// Reads `networks` of a service, and notes which networks are used. The service is known by its
/// short name on each of them.
pub(crate) fn attachments(
    node: Option<&Node>,
    service: &str,
    stage: &mut Stage<'_>,
    log: &mut Log,
) -> Vec<NetworkAttachment> {
    let mut wishes: Vec<(String, Vec<String>, Option<&Node>)> = Vec::new();
    match node.map(|node| (node, &node.value)) {
        Some((_, Value::List(items))) => {
            wishes.extend(items.iter().map(|item| (text(item, log), Vec::new(), Some(item))));
        }
        Some((node, _)) => {
            for entry in entries(node, log) {
                let aliases = options(&entry.node, log);
                wishes.push((entry.key.clone(), aliases, Some(&entry.node)));
            }
        }
        None => {}
    }
    if wishes.is_empty() {
        wishes.push((DEFAULT.into(), Vec::new(), None));
    }
    let mut attachments: Vec<NetworkAttachment> = wishes
        .into_iter()
        .filter_map(|(name, mut aliases, node)| {
            let network = match stage.networks.get(&name) {
                Some(network) => network.clone(),
                None if name == DEFAULT => {
                    plain(&StackPart::own(DEFAULT, stage.around), stage.around)
                }
                None => {
                    let text =
                        format!("the network {name:?} is not in the file's top-level networks");
                    if let Some(node) = node {
                        log.error(node, text);
                    }
                    return None;
                }
            };
            let target = network.spec.name.as_str().into();
            stage.used.insert(name, network);
            if !aliases.iter().any(|alias| alias == service) {
                aliases.push(service.to_owned());
            }
            Some(NetworkAttachment { target, aliases })
        })
        .collect();
    attachments.sort_by(|one, other| one.target.cmp(&other.target));
    attachments.dedup_by(|one, other| one.target == other.target);
    attachments
}

/// Reads `network_mode`: a network of every node's own.
pub(crate) fn of_node(
    mode: &Node,
    networks: Option<&Node>,
    ports: &[PublishedPort],
    log: &mut Log,
) -> Vec<NetworkAttachment> {
    if let Some(networks) = networks {
        log.error(networks, "networks and network_mode exclude each other");
    }
    let name = text(mode, log);
    let found = NodeNetwork::ALL.into_iter().find(|network| network.name() == name);
    let Some(network) = found else {
        log.error(mode, format!("{name:?} is none of host, none, bridge: a task has no network of other containers, which may be elsewhere"));
        return Vec::new();
    };
    if network != NodeNetwork::Bridge && !ports.is_empty() {
        log.error(mode, format!("ports are not published on the network {name}: remove ports"));
    }
    vec![NetworkAttachment { target: name.as_str().into(), aliases: Vec::new() }]
}

/// Reads what a service wants on one network; returns its aliases.
fn options(node: &Node, log: &mut Log) -> Vec<String> {
    let mut fields = Fields::of(node, log);
    let aliases = fields.take("aliases").map(|node| strings(node, log)).unwrap_or_default();
    fields.ignore(
        &[
            ("ipv4_address", "tasks of a service have addresses of the cluster's choice"),
            ("ipv6_address", "tasks of a service have addresses of the cluster's choice"),
            ("priority", "it has no effect in a cluster"),
        ],
        log,
    );
    fields.refuse(
        &[("driver_opts", "driver options of an attachment are not supported by skep")],
        log,
    );
    fields.finish(log);
    aliases
}
