//! Options of plain containers that are texts: what `-v`, `--tmpfs`, `--add-host`, `--expose` and
//! `-p` send.

use engine::HostPort;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::net::IpAddr;
use types::{Fault, HostEntry, MountKind, Propagation, Protocol};

#[derive(Debug, Default, Deserialize)]
#[serde(rename = "PortBinding", rename_all = "PascalCase", default)]
pub(super) struct BindingJson {
    host_port: String,
}

/// Reads `SOURCE:TARGET[:OPTIONS]`.
pub(super) fn parse_bind(bind: &str) -> Result<types::Mount, Fault> {
    let wrong = || Fault::invalid(format!("invalid volume specification: '{bind}'"));
    let mut parts = bind.split(':');
    let (source, target) = (parts.next().unwrap_or_default(), parts.next().ok_or_else(wrong)?);
    if !target.starts_with('/') {
        return Err(wrong());
    }
    let mut mount = types::Mount {
        kind: if source.starts_with('/') { MountKind::Bind } else { MountKind::Volume },
        source: source.to_owned(),
        target: target.to_owned(),
        ..types::Mount::default()
    };
    for option in parts.next().unwrap_or_default().split(',') {
        let bind = mount.kind == MountKind::Bind;
        match option {
            // The last three are for file systems of other machines, and labels of SELinux, which
            // containers do not get.
            "" | "rw" | "z" | "Z" | "cached" | "delegated" | "consistent" => {}
            "ro" => mount.read_only = true,
            "nocopy" if !bind => mount.no_copy = true,
            word => match Propagation::parse(word).filter(|_| bind) {
                Some(propagation) => mount.propagation = propagation,
                None => return Err(Fault::invalid(format!("invalid mode: {word}"))),
            },
        }
    }
    Ok(mount)
}

/// Of the options of tmpfs(5) and mount(8) those that Docker takes, besides size, mode and ro.
const TMPFS_FLAGS: [&str; 18] = [
    "rw",
    "exec",
    "noexec",
    "suid",
    "nosuid",
    "dev",
    "nodev",
    "sync",
    "async",
    "dirsync",
    "atime",
    "noatime",
    "diratime",
    "nodiratime",
    "relatime",
    "norelatime",
    "strictatime",
    "nostrictatime",
];
const TMPFS_VALUES: [&str; 5] = ["uid", "gid", "nr_inodes", "nr_blocks", "mpol"];

/// Reads `--tmpfs TARGET:OPTIONS`.
pub(super) fn tmpfs(target: &str, options: &str) -> Result<types::Mount, Fault> {
    let mut mount = types::Mount {
        kind: MountKind::Tmpfs,
        target: target.to_owned(),
        ..types::Mount::default()
    };
    for option in options.split(',').filter(|option| !option.is_empty()) {
        let wrong = || Fault::invalid(format!("invalid tmpfs option '{option}' of {target}"));
        match option.split_once('=') {
            Some(("size", size)) => mount.tmpfs_size = bytes(size).ok_or_else(wrong)?,
            Some(("mode", mode)) => {
                mount.tmpfs_mode = u32::from_str_radix(mode, 8).map_err(|_invalid| wrong())?;
            }
            None if option == "ro" => mount.read_only = true,
            None if TMPFS_FLAGS.contains(&option) => mount.tmpfs_options.push(option.to_owned()),
            Some((name, _)) if TMPFS_VALUES.contains(&name) => {
                mount.tmpfs_options.push(option.to_owned());
            }
            _ => return Err(Fault::not_implemented(&format!("the tmpfs option '{option}'"))),
        }
    }
    Ok(mount)
}

/// Reads a number of bytes as mount(8) does: `65536`, `64k`, `1g`.
fn bytes(text: &str) -> Option<u64> {
    let text = text.to_ascii_lowercase();
    let unit = text.trim_start_matches(|digit: char| digit.is_ascii_digit());
    let factor: u64 = match unit {
        "" => 1,
        "k" => 1 << 10,
        "m" => 1 << 20,
        "g" => 1 << 30,
        _ => return None,
    };
    text[..text.len() - unit.len()].parse::<u64>().ok()?.checked_mul(factor)
}

/// The word for this node, as containers see it.
const HOST_GATEWAY: &str = "host-gateway";

/// Reads `NAME:IP` or `NAME=IP`; the address may be in brackets, or [`HOST_GATEWAY`].
pub(super) fn extra_host(entry: &str, gateway: Option<IpAddr>) -> Result<HostEntry, Fault> {
    let wrong = || Fault::invalid(format!("bad format for add-host: \"{entry}\""));
    let (name, address) = entry.split_once(['=', ':']).ok_or_else(wrong)?;
    if name.is_empty() {
        return Err(wrong());
    }
    let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let address = match bare.unwrap_or(address) {
        HOST_GATEWAY => gateway.ok_or_else(|| {
            Fault::invalid(
                "unable to derive the IP value for host-gateway: this node has no gateway bridge",
            )
        })?,
        address => address.parse().map_err(|_invalid| {
            Fault::invalid(format!("invalid IP address in add-host: \"{address}\""))
        })?,
    };
    Ok(HostEntry { address, names: vec![name.to_owned()] })
}

/// What stands before the protocol, and the protocol in small letters: clients write it in any.
pub(crate) fn protocol_of(text: &str) -> (&str, String) {
    let (number, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    (number, protocol.to_ascii_lowercase())
}

/// Reads `PORT[/PROTOCOL]`.
pub(super) fn exposed(text: &str) -> Result<String, Fault> {
    let (number, protocol) = protocol_of(text);
    let is_port = number.split('-').all(|number| number.parse::<u16>().is_ok());
    if !is_port || !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return Err(Fault::invalid(format!("invalid port specification: \"{text}\"")));
    }
    Ok(format!("{number}/{protocol}"))
}

pub(super) fn host_ports(
    bindings: &BTreeMap<String, Option<Vec<BindingJson>>>,
) -> Result<Vec<HostPort>, Fault> {
    let mut ports = Vec::new();
    for (target, bindings) in bindings {
        let wrong = || Fault::invalid(format!("invalid port specification: \"{target}\""));
        let (number, protocol) = protocol_of(target);
        let target: u16 = number.parse().map_err(|_invalid| wrong())?;
        let protocol = match protocol.as_str() {
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            other => return Err(Fault::not_implemented(&format!("publishing {other} ports"))),
        };
        for binding in bindings.iter().flatten() {
            let published = match binding.host_port.as_str() {
                "" => 0,
                number => number.parse().map_err(|_invalid| wrong())?,
            };
            ports.push(HostPort { protocol, published, target });
        }
    }
    Ok(ports)
}
