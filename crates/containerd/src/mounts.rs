//! Mounting a container's file system on this machine, as containerd describes it.

use crate::error::Error;
use containerd_client::types::Mount;
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use std::io;
use std::path::Path;

/// mount(2) takes one page of options.
const OPTIONS_MAX: usize = 4095;

/// `mount -t TYPE -o OPTIONS SOURCE AT`
pub(crate) fn mount_at(mounts: &[Mount], at: &Path) -> Result<(), Error> {
    let failed = |source: io::Error| Error::file("mount a file system at", at, source);
    for part in mounts {
        let mut flags = MsFlags::empty();
        let mut options: Vec<&str> = Vec::new();
        for option in &part.options {
            match option.as_str() {
                "ro" => flags |= MsFlags::MS_RDONLY,
                "bind" => flags |= MsFlags::MS_BIND,
                "rbind" => flags |= MsFlags::MS_BIND | MsFlags::MS_REC,
                "rw" => {}
                other => options.push(other),
            }
        }
        let options = options.join(",");
        if OPTIONS_MAX < options.len() {
            let reason = "the image has too many layers to be mounted from this directory";
            return Err(failed(io::Error::other(reason)));
        }
        let kind = (!flags.contains(MsFlags::MS_BIND)).then_some(part.r#type.as_str());
        let options = (!options.is_empty()).then_some(options.as_str());
        let source = Some(part.source.as_str());
        mount(source, at, kind, flags, options).map_err(|error| failed(error.into()))?;
    }
    Ok(())
}

/// `umount AT`; that nothing is mounted there is fine.
pub(crate) fn unmount(at: &Path) -> Result<(), Error> {
    // Lazily: whoever still has a file open there must not keep the container from starting.
    match umount2(at, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
        Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => Ok(()),
        Err(error) => Err(Error::file("unmount", at, error.into())),
    }
}
