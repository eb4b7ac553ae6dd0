//! What a container has of its node's own, where it asks for it: name spaces, devices, all rights.

use serde::{Deserialize, Serialize};
use std::fs::Metadata;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use types::Fault;

/// What of the node's own a container has; nothing, unless it asks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[expect(clippy::struct_excessive_bools, reason = "as many name spaces as there are")]
pub struct NodeAccess {
    /// It may do what the daemon may, and has all devices.
    pub privileged: bool,
    /// It sees the node's processes.
    pub pid: bool,
    /// It has the node's shared memory and queues.
    pub ipc: bool,
    /// It has the node's name.
    pub uts: bool,
    /// It sees the node's cgroups.
    pub cgroup: bool,
    pub devices: Vec<Device>,
    /// Further devices that it may use if it makes their nodes, e.g. `c 1:3 rw`.
    pub device_rules: Vec<String>,
}

impl NodeAccess {
    pub(crate) fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// A device of the node, or a folder of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Device {
    pub source: String,
    /// Where it is in the container.
    pub target: String,
    /// Of `r`, `w` and `m` (make a node of it).
    pub access: String,
}

impl Device {
    /// Says whether an access is of these letters, each once at most.
    pub fn is_access(text: &str) -> bool {
        let once = |letter| text.chars().filter(|other| *other == letter).count() <= 1;
        !text.is_empty() && text.chars().all(|letter| "rwm".contains(letter) && once(letter))
    }
}

/// A rule of cgroups for devices: `TYPE MAJOR:MINOR ACCESS`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceRule {
    /// `a` (all), `b` or `c`.
    pub kind: char,
    /// `None`: all of them.
    pub major: Option<u32>,
    pub minor: Option<u32>,
    pub access: String,
}

impl DeviceRule {
    /// `None`: it cannot be read.
    pub fn parse(text: &str) -> Option<Self> {
        let [kind, numbers, access] = text.split(' ').collect::<Vec<_>>().try_into().ok()?;
        let number = |text: &str| match text {
            "*" => Some(None),
            digits => digits.parse().ok().map(Some),
        };
        let (major, minor) = numbers.split_once(':')?;
        let kind = ['a', 'b', 'c'].into_iter().find(|known| kind == known.to_string())?;
        Device::is_access(access).then_some(Self {
            kind,
            major: number(major)?,
            minor: number(minor)?,
            access: access.to_owned(),
        })
    }
}

/// A device as the node has it, and where it is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) path: String,
    /// `b` or `c`.
    pub(crate) kind: char,
    pub(crate) numbers: (u64, u64),
    pub(crate) mode: u32,
    pub(crate) owner: (u32, u32),
    pub(crate) access: String,
}

/// Below /dev, and not devices of the machine: each container has its own.
const OWN: [&str; 8] = ["pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev", "console"];

/// Looks for the devices that a container is to have. It blocks.
pub(crate) fn find(wanted: &NodeAccess) -> Result<Vec<Found>, Fault> {
    let mut found = Vec::new();
    if wanted.privileged {
        below(Path::new("/dev"), ("/dev", "rwm"), &mut found).map_err(|error| {
            Fault::internal(format!("cannot look at the node's devices: {error}"))
        })?;
    }
    // A privileged container has them all already, under their own names.
    let further = |device: &&Device| !wanted.privileged || device.source != device.target;
    for device in wanted.devices.iter().filter(further) {
        let Device { source, target, access } = device;
        let wrong = |why: &dyn std::fmt::Display| {
            Fault::internal(format!(
                "error gathering device information while adding custom device \"{source}\": {why}"
            ))
        };
        let path = Path::new(source);
        let there = std::fs::metadata(path).map_err(|_none| wrong(&"no such file or directory"))?;
        if there.is_dir() {
            below(path, (target, access), &mut found).map_err(|error| wrong(&error))?;
        } else {
            found.push(read(&there, (target, access)).ok_or_else(|| wrong(&"not a device node"))?);
        }
    }
    Ok(found)
}

fn below(
    folder: &Path,
    (target, access): (&str, &str),
    found: &mut Vec<Found>,
) -> std::io::Result<()> {
    let mut entries = std::fs::read_dir(folder)?.collect::<Result<Vec<_>, _>>()?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        // What goes away meanwhile is no device any more; links lead to what is found in any case.
        let Ok(there) = std::fs::symlink_metadata(entry.path()) else { continue };
        let target = format!("{}/{name}", target.trim_end_matches('/'));
        if OWN.contains(&&*name) {
            continue;
        }
        if there.is_dir() {
            below(&entry.path(), (&target, access), found)?;
        } else if let Some(device) = read(&there, (&target, access)) {
            found.push(device);
        }
    }
    Ok(())
}

fn read(there: &Metadata, (target, access): (&str, &str)) -> Option<Found> {
    let kind = there.file_type();
    let kind = match (kind.is_block_device(), kind.is_char_device()) {
        (true, _) => 'b',
        (false, true) => 'c',
        (false, false) => return None,
    };
    let number = there.rdev();
    Some(Found {
        path: target.to_owned(),
        kind,
        numbers: (nix::sys::stat::major(number), nix::sys::stat::minor(number)),
        mode: there.mode() & 0o7777,
        owner: (there.uid(), there.gid()),
        access: access.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wants(source: &str, target: &str) -> Result<Vec<Found>, Fault> {
        let [source, target, access] = [source, target, "rw"].map(str::to_owned);
        let devices = vec![Device { source, target, access }];
        find(&NodeAccess { devices, ..NodeAccess::default() })
    }

    #[test]
    fn devices_are_found_as_the_node_has_them_or_refused_by_name() {
        let null = wants("/dev/null", "/dev/other").unwrap();
        let [Found { path, kind: 'c', numbers: (1, 3), access, .. }] = null.as_slice() else {
            panic!("{null:?}");
        };
        assert_eq!((path.as_str(), access.as_str()), ("/dev/other", "rw"));
        let folder = wants("/dev/", "/there").unwrap();
        assert!(folder.iter().any(|one| one.path == "/there/null"), "{folder:?}");
        assert!(!folder.iter().any(|one| one.path.starts_with("/there/pts")), "{folder:?}");
        let all = find(&NodeAccess { privileged: true, ..NodeAccess::default() }).unwrap();
        assert!(all.iter().any(|one| one.path == "/dev/null" && one.access == "rwm"));
        for (path, why) in
            [("/dev/none", "no such file or directory"), ("/etc/passwd", "not a device node")]
        {
            let refused = wants(path, path).unwrap_err().message;
            assert!(refused.contains(path) && refused.ends_with(why), "{refused}");
        }
    }

    #[test]
    fn rules_for_devices_are_read_or_not_taken() {
        let all = DeviceRule { kind: 'a', major: None, minor: None, access: "rwm".to_owned() };
        assert_eq!(DeviceRule::parse("a *:* rwm"), Some(all));
        let one = DeviceRule::parse("c 1:3 mr").unwrap();
        assert_eq!((one.kind, one.major, one.minor), ('c', Some(1), Some(3)));
        for text in
            ["", "c", "c 1:3", "d 1:3 r", "c 1 r", "c 1:x r", "c 1:3 x", "c 1:3 rr", "c 1:3 "]
        {
            assert_eq!(DeviceRule::parse(text), None, "{text}");
        }
    }
}
