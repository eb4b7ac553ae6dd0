//! Taking everything of ours down.

use super::{Config, firewall, gateway, mesh, overlay, router};
use crate::error::Error;
use crate::netlink::{LinkKind, Links, Socket, delete_link};
use crate::nft::Nftables;
use crate::render;
use std::collections::BTreeMap;

/// Removes overlays, the mesh, the gateway bridge and what hangs on it, and forwards no more where we
/// were those who did. The thread must be in the
/// node's namespace.
pub(super) fn clean(config: &Config) -> Result<(), Error> {
    gateway::check(config)?;
    overlay::dismantle_others(config, &BTreeMap::new())?;
    let mut socket = Socket::route()?;
    mesh::remove(&mut socket, config)?;
    let table = render::mesh::TABLE;
    let text = ["ip", "bridge", "netdev"].map(|family| render::removal(family, table)).concat();
    let mut rules = Nftables::load()?.open()?;
    // Before the table goes that keeps interfaces apart.
    router::restore(&rules)?;
    rules.run(&text)?;
    firewall::dismiss(&mut rules, config)?;
    let links = Links::observe(&mut socket)?;
    let ours = links.0.iter().filter(|link| match link.kind {
        LinkKind::Veth => gateway::is_port(&link.name),
        LinkKind::Bridge => link.name == config.bridge,
        LinkKind::Vxlan { .. } | LinkKind::Other => false,
    });
    let deletions: Vec<_> = ours.map(|link| delete_link(link.index)).collect();
    socket.send(&deletions)
}
