//! How large packets on overlays may be.

use crate::error::Error;
use crate::netlink::{Addresses, Links, Socket};
use std::net::Ipv4Addr;

/// What a network's creator may say at least: IPv4 wants 68 bytes on an interface.
const LEAST: u32 = 68 + OVERHEAD;
/// The tunnel's headers: Ethernet, VXLAN, UDP, IPv4.
const OVERHEAD: u32 = 50;
/// Where the underlay is not found. Larger ones are not used unless asked for: not every node may
/// have one.
const USUAL: u32 = 1500;

/// The MTU of an overlay's interfaces, whose tunnel begins at `local`: what the network's creator
/// said of the underlay (`wanted`, 0: nothing), or the underlay's own. In the thread's namespace.
pub(super) fn of_overlay(socket: &mut Socket, local: Ipv4Addr, wanted: u32) -> Result<u32, Error> {
    let underlay = match wanted {
        0 => underlay(socket, local)?.map_or(USUAL, |found| found.min(USUAL)),
        said => said,
    };
    Ok(underlay.max(LEAST) - OVERHEAD)
}

/// The MTU of the interface that has an address.
fn underlay(socket: &mut Socket, local: Ipv4Addr) -> Result<Option<u32>, Error> {
    let Some(index) = Addresses::observe(socket)?.applier(local) else { return Ok(None) };
    let links = Links::observe(socket)?;
    Ok(links.0.iter().find(|link| link.index == index).map(|link| link.mtu))
}
