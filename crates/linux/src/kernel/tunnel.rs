//! Making a VXLAN tunnel although something may be left of an earlier one.

use crate::error::Error;
use crate::netlink::{LinkKind, Links, Socket, Vxlan, add_vxlan, delete_link};

/// Makes the tunnel in the thread's namespace and returns its index. A VNI can be there only once
/// among all tunnels whose UDP socket is in this namespace, wherever they have been moved to. Nobody
/// is waited for who has it: our own tunnels leave it free at once when they are removed, and
/// whatever else holds it is for a later application to find gone.
pub(super) fn make(socket: &mut Socket, vxlan: &Vxlan<'_>) -> Result<u32, Error> {
    let mut made = socket.send_one(add_vxlan(vxlan));
    if is_taken(&made) && remove_leftover(socket, vxlan)? {
        made = socket.send_one(add_vxlan(vxlan));
    }
    let taken = Error::VniTaken { vni: vxlan.vni };
    if is_taken(&made) {
        return Err(taken);
    }
    made?;
    Links::observe(socket)?.named(vxlan.name).map(|link| link.index).ok_or(taken)
}

fn is_taken(made: &Result<(), Error>) -> bool {
    made.as_ref().is_err_and(|error| error.code() == Some(libc::EEXIST))
}

/// A crash between making and moving leaves a tunnel here. Says whether there was one.
fn remove_leftover(socket: &mut Socket, vxlan: &Vxlan<'_>) -> Result<bool, Error> {
    let links = Links::observe(socket)?;
    let ours = links.0.iter().find(|link| match link.kind {
        LinkKind::Vxlan { vni, .. } => {
            link.name == vxlan.name || vni == vxlan.vni && link.name.starts_with("skep")
        }
        LinkKind::Bridge | LinkKind::Veth | LinkKind::Other => false,
    });
    ours.map(|link| socket.send_one(delete_link(link.index))).transpose().map(|gone| gone.is_some())
}
