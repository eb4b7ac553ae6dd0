//! Mounting a container's file system on this machine, as containerd describes it.

use crate::error::Error;
use containerd_client::types::Mount;
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use types::Fault;

/// mount(2) takes one page of options.
const OPTIONS_MAX: usize = 4095;

/// Mounts or unmounts beside the loops: both wait for the disk.
pub(crate) async fn beside<F>(work: F) -> Result<(), Error>
where
    F: FnOnce() -> Result<(), Error> + Send + 'static,
{
    let ended = tokio::task::spawn_blocking(work).await;
    ended.map_err(|panic| Fault::internal(format!("a mount failed: {panic}")))?
}

/// The same file system to be read alone: an overlay's writable folder is the topmost of those that
/// it only reads.
///
/// When the last mount of an overlay that can be written goes, the kernel writes out the whole disk
/// below it, whosever data that is. One that is read-only has nothing to write.
pub(crate) fn to_read(mounts: Vec<Mount>) -> Vec<Mount> {
    mounts.into_iter().map(part_to_read).collect()
}

fn part_to_read(mut part: Mount) -> Mount {
    let value = |name: &str| part.options.iter().find_map(|option| option.strip_prefix(name));
    let (Some(upper), Some(lower)) = (value("upperdir="), value("lowerdir=")) else {
        return part;
    };
    let layers = format!("lowerdir={upper}:{lower}");
    // These say how to write, or are said anew.
    let replaced = ["upperdir=", "workdir=", "lowerdir="];
    part.options.retain(|option| {
        option != "rw" && option != "volatile" && !replaced.iter().any(|it| option.starts_with(it))
    });
    part.options.extend(["ro".to_owned(), layers]);
    part
}

/// `mount -t TYPE -o OPTIONS SOURCE AT`
pub(crate) fn mount_at(mounts: &[Mount], at: &Path) -> Result<(), Error> {
    // Nobody runs anything here, and an image's device is none of the machine's.
    mount_with(mounts, at, MsFlags::MS_NODEV | MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC)
}

/// The same for a container to have it: it may run what is there.
pub(crate) fn mount_to_run(mounts: &[Mount], at: &Path) -> Result<(), Error> {
    mount_with(mounts, at, MsFlags::MS_NODEV | MsFlags::MS_RDONLY)
}

fn mount_with(mounts: &[Mount], at: &Path, always: MsFlags) -> Result<(), Error> {
    let failed = |source: io::Error| Error::file("mount a file system at", at, source);
    for part in mounts {
        let mut flags = always;
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

    /// A disk of its own for the test, as an overlay needs its writable part on a file system that
    /// is none; unmounted at the end.
    struct Disk(tempfile::TempDir);

    impl Disk {
        fn new() -> Self {
            let prefix = format!("skt-{}-", std::process::id());
            let folder = tempfile::Builder::new().prefix(&prefix).tempdir().unwrap();
            let none = None::<&str>;
            mount(Some("tmpfs"), folder.path(), Some("tmpfs"), MsFlags::empty(), none).unwrap();
            Self(folder)
        }

        fn folder(&self, name: &str) -> String {
            let path = self.0.path().join(name);
            std::fs::create_dir_all(&path).unwrap();
            path.to_str().unwrap().to_owned()
        }

        /// As containerd has it: all in one folder.
        fn snapshot(&self, name: &str) -> String {
            self.folder(&format!("{}/{name}", "long".repeat(20)))
        }

        fn overlay(&self, layers: &[String]) -> Mount {
            let options = vec![
                format!("workdir={}", self.snapshot("work")),
                format!("upperdir={}", self.snapshot("upper")),
                format!("lowerdir={}", layers.join(":")),
            ];
            let kind = "overlay".to_owned();
            Mount { r#type: kind.clone(), source: kind, options, ..Mount::default() }
        }
    }

    impl Drop for Disk {
        fn drop(&mut self) {
            unmount(&self.0.path().join("at")).unwrap();
            unmount(self.0.path()).unwrap();
        }
    }

    #[test]
    fn an_image_of_a_hundred_layers_can_be_mounted() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let disk = Disk::new();
        let layers: Vec<String> =
            (0..100).map(|number| disk.snapshot(&format!("{number}/fs"))).collect();
        std::fs::write(format!("{}/lowest", layers[99]), "").unwrap();
        let at = disk.folder("at");
        mount_at(&to_read(vec![disk.overlay(&layers)]), Path::new(&at)).unwrap();
        assert!(Path::new(&at).join("lowest").exists());
    }

    #[test]
    fn a_look_shows_what_the_container_would_see_and_leaves_nothing_to_write_to_the_disk() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let disk = Disk::new();
        let layers = [disk.snapshot("second"), disk.snapshot("first")];
        let overlay = disk.overlay(&layers);
        let at = disk.folder("at");
        let at = Path::new(&at);
        for (layer, file) in [(0, "both"), (1, "both"), (1, "removed"), (1, "old")] {
            std::fs::write(format!("{}/{file}", layers[layer]), layers[layer].as_str()).unwrap();
        }
        // A container that ran before has changed its files.
        mount_at(std::slice::from_ref(&overlay), at).unwrap();
        std::fs::remove_file(at.join("removed")).unwrap();
        std::fs::write(at.join("old"), "new").unwrap();
        unmount(at).unwrap();

        mount_at(&to_read(vec![overlay]), at).unwrap();
        let read = |file: &str| std::fs::read_to_string(at.join(file)).ok();
        assert_eq!(read("both").as_ref(), Some(&layers[0]));
        assert_eq!((read("old"), read("removed")), (Some("new".to_owned()), None));
        assert!(std::fs::write(at.join("more"), "").is_err());
        // The super block itself is read-only, not this mount of it alone: that is what counts when
        // it is taken off.
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let own = mounts.lines().find(|line| line.contains(&format!(" {} ", at.display())));
        let (_, block) = own.unwrap().split_once(" - overlay ").unwrap();
        assert!(block.contains(" ro,") && !block.contains("upperdir="), "{block}");
    }

    #[test]
    fn what_has_no_writable_folder_is_mounted_as_it_is() {
        let bind = Mount {
            r#type: "bind".to_owned(),
            source: "/snapshots/1/fs".to_owned(),
            options: vec!["rw".to_owned(), "rbind".to_owned()],
            ..Mount::default()
        };
        assert_eq!(to_read(vec![bind.clone()]), [bind]);
    }
}
