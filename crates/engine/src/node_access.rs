//! The node's devices that a container asks for.

use std::fs::Metadata;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use types::{Device, Fault, NodeAccess};

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
}
