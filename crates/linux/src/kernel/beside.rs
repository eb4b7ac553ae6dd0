//! Living beside others on the node: their firewalls (`firewall`), bridges and subnets.

use super::{Config, firewall, mesh, router};
use crate::error::Error;
use crate::namespace;
use crate::netlink::{Addresses, LinkKind, Links, Routes, Socket, TABLE_MAIN};
use ipnet::Ipv4Net;

/// Bridged frames pass through the rules for routed packets.
pub(super) const BRIDGED_FRAMES: &str = "bridge/bridge-nf-call-iptables";

const FORWARDING_OFF: &str = "net.ipv4.ip_forward is off and is switched on; the interfaces that are there lead to each other as little as before (switch it on in /etc/sysctl.d where they shall)";

/// What others have on this node that the data plane will live beside, in whole sentences.
pub(super) fn report(config: &Config) -> Result<Vec<String>, Error> {
    let mut notes = firewall::report(config)?;
    notes.extend(router::is_off().then(|| FORWARDING_OFF.to_owned()));
    let legacy = std::fs::read_to_string("/proc/net/ip_tables_names").unwrap_or_default();
    if legacy.lines().any(|table| table == "filter") {
        notes.push(format!(
            "iptables-legacy has rules, which are not seen here; if it drops what is forwarded, let {} \
             and {} pass: iptables-legacy -I FORWARD -i … -j ACCEPT, and the same with -o",
            config.bridge,
            mesh::TUNNEL
        ));
    }
    let mut socket = Socket::route()?;
    let links = Links::observe(&mut socket)?;
    let taken = is_free(&mut socket, &links, config.gateway_subnet, &[&config.bridge]);
    notes.extend(taken.err().map(|error| format!("{error} by --gateway-subnet")));
    for link in &links.0 {
        if let LinkKind::Vxlan { vni, port, .. } = link.kind
            && !link.name.starts_with("skep")
        {
            notes.push(format!(
                "the tunnel {} has VNI {vni} at port {port}; no network of the cluster can have it here",
                link.name
            ));
        }
    }
    let filtered = namespace::get(BRIDGED_FRAMES).is_some_and(|value| value != "0");
    if filtered && has_foreign_bridge(&links, &config.bridge) {
        notes.push(format!(
            "net.{BRIDGED_FRAMES} is on and stays on, since there are bridges of others; containers' \
             packets pass the firewall once more"
        ));
    }
    Ok(notes)
}

/// Looks whether others use a subnet on this node: an interface that is not ours has an address or a
/// route within it. That it is within a larger one of theirs, is common and does no harm.
pub(super) fn is_free(
    socket: &mut Socket,
    links: &Links,
    subnet: Ipv4Net,
    ours: &[&str],
) -> Result<(), Error> {
    let addresses = Addresses::observe(socket)?;
    let routes = Routes::observe(socket)?;
    for link in links.0.iter().filter(|link| !ours.contains(&link.name.as_str())) {
        let behind = routes.by(link.index, TABLE_MAIN);
        let taken = addresses
            .of(link.index)
            .chain(behind)
            .find(|net| subnet.contains(&net.network()) && subnet.prefix_len() <= net.prefix_len());
        if let Some(net) = taken {
            let (subnet, net) = (subnet.trunc(), net.trunc());
            return Err(Error::SubnetTaken { subnet, net, link: link.name.clone() });
        }
    }
    Ok(())
}

/// Says whether there is a bridge that is not ours: what holds for all bridges concerns it, too.
pub(super) fn has_foreign_bridge(links: &Links, bridge: &str) -> bool {
    links.0.iter().any(|link| link.kind == LinkKind::Bridge && link.name != bridge)
}
