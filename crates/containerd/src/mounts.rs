//! Mounting a container's file system on this machine, as containerd describes it.

use crate::error::Error;
use containerd_client::types::Mount;
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

/// mount(2) takes one page of options.
const OPTIONS_MAX: usize = 4095;

/// `mount -t TYPE -o OPTIONS SOURCE AT`
pub(crate) fn mount_at(mounts: &[Mount], at: &Path) -> Result<(), Error> {
    let failed = |source: io::Error| Error::file("mount a file system at", at, source);
    for part in mounts {
        // Nobody runs anything here, and an image's device is none of the machine's.
        let mut flags = MsFlags::MS_NODEV | MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
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
        let mut options = options.join(",");
        let mut held = None;
        if OPTIONS_MAX < options.len()
            && let Some(parent) = common_parent(&options)
        {
            let folder = File::open(&parent).map_err(failed)?;
            options = options.replace(&parent, &format!("/proc/self/fd/{}/", folder.as_raw_fd()));
            held = Some(folder);
        }
        let kind = (!flags.contains(MsFlags::MS_BIND)).then_some(part.r#type.as_str());
        let options = (!options.is_empty()).then_some(options.as_str());
        let source = Some(part.source.as_str());
        let mounted = mount(source, at, kind, flags, options);
        drop(held);
        mounted.map_err(|error| failed(error.into()))?;
    }
    Ok(())
}

/// The directory that all layers of an overlay lie in, with a slash at its end: fifty of its paths
/// are more than a page.
fn common_parent(options: &str) -> Option<String> {
    let layers = options.split(',').find_map(|option| option.strip_prefix("lowerdir="))?;
    let mut layers = layers.split(':');
    let mut common = layers.next()?;
    for layer in layers {
        let same = common.bytes().zip(layer.bytes()).take_while(|(one, other)| one == other);
        common = &common[..same.count()];
    }
    let end = common.rfind('/')?;
    // The root is no gain.
    (0 < end).then(|| common[..=end].to_owned())
}

/// `umount AT`; that nothing is mounted there is fine.
pub(crate) fn unmount(at: &Path) -> Result<(), Error> {
    // Lazily: whoever still has a file open there must not keep the container from starting.
    match umount2(at, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
        Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => Ok(()),
        Err(error) => Err(Error::file("unmount", at, error.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_share_the_directory_they_lie_in() {
        let parent = |options| common_parent(options);
        assert_eq!(parent("index=off,lowerdir=/a/b/12/fs:/a/b/13/fs"), Some("/a/b/".to_owned()));
        assert_eq!(parent("lowerdir=/a:/b"), None);
        assert_eq!(parent("index=off"), None);
    }

    #[test]
    fn an_image_of_a_hundred_layers_can_be_mounted() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let prefix = format!("skt-{}-", std::process::id());
        let folder = tempfile::Builder::new().prefix(&prefix).tempdir().unwrap();
        // An overlay needs its writable part on a file system that is none.
        let none = None::<&str>;
        mount(Some("tmpfs"), folder.path(), Some("tmpfs"), MsFlags::empty(), none).unwrap();
        let make = |name: String| {
            let path = folder.path().join(name);
            std::fs::create_dir_all(&path).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let layers: Vec<String> =
            (0..100).map(|number| make(format!("{}/{number}/fs", "long".repeat(20)))).collect();
        std::fs::write(format!("{}/lowest", layers[99]), "").unwrap();
        let options = vec![
            format!("lowerdir={}", layers.join(":")),
            format!("upperdir={}", make("upper".to_owned())),
            format!("workdir={}", make("work".to_owned())),
        ];
        let overlay = Mount {
            r#type: "overlay".to_owned(),
            source: "overlay".to_owned(),
            options,
            ..Mount::default()
        };
        let at = make("at".to_owned());
        let mounted = mount_at(&[overlay], Path::new(&at));
        let found = Path::new(&at).join("lowest").exists();
        unmount(Path::new(&at)).unwrap();
        unmount(folder.path()).unwrap();
        mounted.unwrap();
        assert!(found);
    }
}
