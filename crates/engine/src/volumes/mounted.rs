//! Volumes that are mounted while containers use them.
//!
//! What is mounted, the kernel's table says; who uses it, the containers that run. Both are looked at
//! anew, so a daemon that was killed counts no user twice and forgets none.
//!
//! Invariant: mounting and unmounting one volume takes turns, and waits for no other one.

use super::Volume;
use super::local::{LocalMount, without_password};
use super::plugin::{NotMounted, Plugins};
use crate::blocking::{blocking, cannot};
use crate::by_name::ByName;
use crate::mounting::{Mounter, Order};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use types::Fault;

/// For the name of a server to be resolved.
const RESOLVE_MAX: Duration = Duration::from_secs(10);

/// Ids of the containers that use each volume.
type Users = BTreeMap<String, BTreeSet<String>>;

/// The mounts of all volumes with options. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct VolumeMounts {
    mounter: Mounter,
    plugins: Plugins,
    users: Arc<Mutex<Users>>,
    turns: Arc<ByName<tokio::sync::Mutex<()>>>,
}

impl VolumeMounts {
    pub(crate) fn new(mounter: Mounter, plugins: Plugins) -> Self {
        Self { mounter, plugins, users: Arc::default(), turns: Arc::default() }
    }

    /// Mounts a volume for a container, unless it is mounted already; says where its files are.
    pub(crate) async fn acquire(&self, volume: &Volume, user: &str) -> Result<PathBuf, Fault> {
        if volume.is_plugins() {
            // From here on: whoever waits for this may be gone when the plugin has answered.
            self.note(&volume.name, user);
            let mounted = match self.plugins.find(volume.driver()) {
                Ok(plugin) => plugin.mount(&volume.name, user).await,
                Err(fault) => Err(NotMounted { fault, is_sure: true }),
            };
            return mounted.map_err(|NotMounted { fault, is_sure }| {
                if is_sure {
                    self.forget(&volume.name, user);
                }
                let message = format!("error while mounting volume '{}': {fault}", volume.name);
                Fault::new(fault.kind, message)
            });
        }
        let Some(wanted) = volume.mount() else { return Ok(volume.path.clone()) };
        let turn = self.turn(&volume.name);
        let _turn = turn.lock().await;
        self.note(&volume.name, user);
        if is_mounted(&volume.path)? {
            return Ok(volume.path.clone());
        }
        let mounted = self.mount(wanted, &volume.path).await;
        if mounted.is_err() {
            self.forget(&volume.name, user);
        }
        let path = volume.path.display();
        mounted.map(|()| volume.path.clone()).map_err(|why| {
            Fault::invalid(format!(
                "error while mounting volume '{path}': failed to mount local volume: {why}"
            ))
        })
    }

    async fn mount(&self, wanted: LocalMount, target: &Path) -> Result<(), String> {
        let LocalMount { kind, device, options } = match wanted.server() {
            None => wanted,
            Some(server) => {
                let address = address_of(server).await?;
                wanted.at(address)
            }
        };
        if device.is_empty() {
            return Err("missing device in volume options".to_owned());
        }
        let target = target.to_owned();
        let order = Order::Mount { device, target, kind, options: options.clone() };
        let done = self.mounter.carry_out(order).await;
        done.map_err(|why| without_password(&why, &options))
    }

    /// Unmounts a volume that the last container has ended with. Plugins count: they are told the end
    /// of each use once, and of none that they did not hear the beginning of.
    pub(crate) async fn release(&self, volume: &Volume, user: &str) -> Result<(), Fault> {
        if volume.is_plugins() {
            if !self.is_noted(&volume.name, user) {
                return Ok(());
            }
            let plugin = self.plugins.find(volume.driver())?;
            self.forget(&volume.name, user);
            return plugin.unmount(&volume.name, user).await;
        }
        if volume.mount().is_none() {
            return Ok(());
        }
        let turn = self.turn(&volume.name);
        let _turn = turn.lock().await;
        self.forget(&volume.name, user);
        self.unmount_unused(volume).await
    }

    /// Unmounts what an engine before this one has mounted and nobody uses any more.
    pub(crate) async fn tidy(&self, volume: &Volume) -> Result<(), Fault> {
        let turn = self.turn(&volume.name);
        let _turn = turn.lock().await;
        self.unmount_unused(volume).await
    }

    /// Whoever calls this has the volume's turn.
    async fn unmount_unused(&self, volume: &Volume) -> Result<(), Fault> {
        if self.users().contains_key(&volume.name) || !is_mounted(&volume.path)? {
            return Ok(());
        }
        let order = Order::Unmount { target: volume.path.clone() };
        self.mounter.carry_out(order).await.map_err(Fault::internal)
    }

    /// A container that runs uses a volume, whoever mounted it.
    pub(crate) fn note(&self, volume: &str, user: &str) {
        self.users().entry(volume.to_owned()).or_default().insert(user.to_owned());
    }

    fn is_noted(&self, volume: &str, user: &str) -> bool {
        self.users().get(volume).is_some_and(|users| users.contains(user))
    }

    fn forget(&self, volume: &str, user: &str) {
        let mut all = self.users();
        if let Some(users) = all.get_mut(volume) {
            users.remove(user);
            if users.is_empty() {
                all.remove(volume);
            }
        }
    }

    /// Shows a path of a volume at a target, for a container to have it from there.
    pub(crate) async fn bind(&self, root: &Path, subpath: &str, at: &Path) -> Result<(), Fault> {
        let (root, subpath, target) = (root.to_owned(), subpath.to_owned(), at.to_owned());
        let done = self.mounter.carry_out(Order::Bind { root, subpath, target }).await;
        done.map_err(Fault::invalid)
    }

    fn turn(&self, volume: &str) -> Arc<tokio::sync::Mutex<()>> {
        self.turns.get(volume, tokio::sync::Mutex::default)
    }

    /// Held for a moment only.
    fn users(&self) -> MutexGuard<'_, Users> {
        self.users.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_mounted(path: &Path) -> Result<bool, Fault> {
    host::is_mounted(path).map_err(cannot("read mounts"))
}

async fn address_of(server: &str) -> Result<IpAddr, String> {
    let failed = |why: &dyn std::fmt::Display| {
        format!("error resolving passed in network volume address: lookup {server}: {why}")
    };
    let found = tokio::time::timeout(RESOLVE_MAX, tokio::net::lookup_host((server, 0))).await;
    let mut found = found.map_err(|elapsed| failed(&elapsed))?.map_err(|error| failed(&error))?;
    found.next().map(|it| it.ip()).ok_or_else(|| failed(&"no such host"))
}

/// Takes a mount away from a volume that is about to be removed with its folder; whatever is still
/// mounted there keeps its files.
pub(super) fn uncover(volume: &Volume) -> Result<(), Fault> {
    if !is_mounted(&volume.path)? {
        return Ok(());
    }
    let name = &volume.name;
    let failed = |why: &dyn std::fmt::Display| {
        Fault::internal(format!("remove {name}: it cannot be unmounted: {why}"))
    };
    crate::mounting::unmount(&volume.path).map_err(|errno| failed(&errno.desc()))?;
    if is_mounted(&volume.path)? {
        return Err(failed(&"something else is mounted there, too"));
    }
    Ok(())
}

/// All of it beside the loops.
pub(crate) async fn take_away(target: PathBuf) -> Result<(), Fault> {
    blocking(move || crate::mounting::take_away(&target)).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::Events;
    use crate::volumes::{VolumeOrder, Volumes};
    use std::fs;

    fn tmpfs(volumes: &Volumes, name: &str) -> Volume {
        let options = [("type", "tmpfs"), ("device", "tmpfs"), ("o", "size=1m,mode=0700")];
        let options = options.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let order = VolumeOrder { name: name.to_owned(), options, ..VolumeOrder::default() };
        volumes.make(order).unwrap()
    }

    #[tokio::test]
    async fn a_volume_is_mounted_from_its_first_user_to_its_last() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let volumes =
            Volumes::new(dir.path().join("volumes"), Plugins::new(Vec::new()), Events::new());
        let volume = tmpfs(&volumes, "scratch");
        let mounts = VolumeMounts::new(Mounter::new(None), Plugins::new(Vec::new()));
        mounts.acquire(&volume, "one").await.unwrap();
        fs::write(volume.path.join("file"), "text").unwrap();
        mounts.acquire(&volume, "two").await.unwrap();
        mounts.acquire(&volume, "two").await.unwrap();
        mounts.release(&volume, "one").await.unwrap();
        assert!(volume.path.join("file").exists(), "the other one has it");
        // A new engine, of a daemon that was killed: it finds who runs, and unmounts nothing of his.
        let mounts = VolumeMounts::new(Mounter::new(None), Plugins::new(Vec::new()));
        mounts.note("scratch", "two");
        mounts.tidy(&volume).await.unwrap();
        assert!(volume.path.join("file").exists());
        mounts.release(&volume, "two").await.unwrap();
        assert!(!is_mounted(&volume.path).unwrap());
        assert!(!volume.path.join("file").exists());
        // What nobody uses goes when the next engine starts.
        mounts.acquire(&volume, "lost").await.unwrap();
        VolumeMounts::new(Mounter::new(None), Plugins::new(Vec::new()))
            .tidy(&volume)
            .await
            .unwrap();
        assert!(!is_mounted(&volume.path).unwrap());
    }

    #[tokio::test]
    async fn a_volume_that_is_removed_takes_nothing_with_it_that_is_mounted_there() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let volumes =
            Volumes::new(dir.path().join("volumes"), Plugins::new(Vec::new()), Events::new());
        let precious = dir.path().join("precious");
        fs::create_dir(&precious).unwrap();
        fs::write(precious.join("file"), "text").unwrap();
        let options = [("type", "none"), ("device", precious.to_str().unwrap()), ("o", "bind")];
        let options = options.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let order = VolumeOrder { name: "bound".to_owned(), options, ..VolumeOrder::default() };
        let volume = volumes.make(order).unwrap();
        let mounts = VolumeMounts::new(Mounter::new(None), Plugins::new(Vec::new()));
        mounts.acquire(&volume, "one").await.unwrap();
        assert!(volume.path.join("file").exists());
        volumes.remove("bound", false, |_| None).unwrap();
        assert!(!volume.path.exists() && precious.join("file").exists());
    }

    #[tokio::test]
    async fn what_cannot_be_mounted_has_no_users_and_tells_no_password() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let volumes =
            Volumes::new(dir.path().join("volumes"), Plugins::new(Vec::new()), Events::new());
        let options = [("type", "nosuchfs"), ("device", "//192.0.2.1/x"), ("o", "password=secret")];
        let options = options.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let order = VolumeOrder { name: "share".to_owned(), options, ..VolumeOrder::default() };
        let volume = volumes.make(order).unwrap();
        let mounts = VolumeMounts::new(Mounter::new(None), Plugins::new(Vec::new()));
        let refused = mounts.acquire(&volume, "one").await.unwrap_err().message;
        let path = volume.path.display();
        let expected = format!(
            "error while mounting volume '{path}': failed to mount local volume: mount \
             //192.0.2.1/x:{path}, data: password=********: no such device"
        );
        assert_eq!(refused, expected);
        assert!(mounts.users().is_empty());
    }
}
