//! Making a VXLAN tunnel although something may be left of an earlier one.

use crate::error::Error;
use crate::netlink::{LinkKind, Links, Socket, Vxlan, add_vxlan, delete_link};
use std::thread;
use std::time::Duration;

/// A namespace that was removed lets go of its VNI 9 to 31 ms later, under load somewhat later.
const ATTEMPTS: u32 = 40;
const PAUSE: Duration = Duration::from_millis(25);

/// Makes the tunnel in the thread's namespace and returns its index. A VNI can be there only once
/// among all tunnels whose UDP socket is in this namespace, wherever they have been moved to.
pub(super) fn make(socket: &mut Socket, vxlan: &Vxlan<'_>) -> Result<u32, Error> {
    for _ in 0..ATTEMPTS {
        match socket.send_one(add_vxlan(vxlan)) {
            Ok(()) => {
                let links = Links::observe(socket)?;
                let made = links.named(vxlan.name).map(|link| link.index);
                return made.ok_or(Error::VniTaken { vni: vxlan.vni });
            }
            Err(error) if error.code() == Some(libc::EEXIST) => remove_leftover(socket, vxlan)?,
            Err(error) => return Err(error),
        }
    }
    Err(Error::VniTaken { vni: vxlan.vni })
}

/// A crash between making and moving leaves a tunnel here; one that has been moved goes with its
/// namespace, soon.
fn remove_leftover(socket: &mut Socket, vxlan: &Vxlan<'_>) -> Result<(), Error> {
    let links = Links::observe(socket)?;
    let ours = links.0.iter().find(|link| match link.kind {
        LinkKind::Vxlan { vni, .. } => {
            link.name == vxlan.name || vni == vxlan.vni && link.name.starts_with("skep")
        }
        LinkKind::Bridge | LinkKind::Veth | LinkKind::Other => false,
    });
    if let Some(link) = ours {
        return socket.send_one(delete_link(link.index));
    }
    thread::sleep(PAUSE);
    Ok(())
}
