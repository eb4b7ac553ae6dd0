//! Volumes: directories with names.
//!
//! Containers that start at once may share a volume that is not there yet: making, filling and
//! removing one volume takes turns. A container that is being made holds its volumes ([`Hold`]) until
//! it is known with them: nobody removes them before.

#[cfg(test)]
mod fake_plugin;
mod local;
mod mounted;
mod plugin;
mod remove;

#[cfg(test)]
pub(crate) use fake_plugin::FakePlugin;
pub(crate) use mounted::{VolumeMounts, take_away};
pub(crate) use plugin::{Plugins, volumes_of};

use crate::blocking::cannot;
use crate::by_name::ByName;
use crate::events::{EventKind, Events};
use crate::{clock, names, record, rootfs};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use types::{Fault, LOCAL_DRIVER, Labels, Timestamp};

const FILE: &str = "volume.json";
/// Where a volume's files are, below its own directory.
const DATA: &str = "_data";

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Volume {
    pub name: String,
    pub labels: Labels,
    pub created: Timestamp,
    /// Made for one container, without a name of its own.
    pub anonymous: bool,
    /// Empty: `local`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub driver: String,
    /// What its driver was told.
    #[serde(skip_serializing_if = "Labels::is_empty")]
    pub options: Labels,
    /// Where its files are; of a plugin's volume what the plugin says, where it was asked.
    #[serde(skip)]
    pub path: PathBuf,
    /// It is the same on all nodes. This and the next as its plugin says, where it was asked.
    #[serde(skip)]
    pub is_global: bool,
    #[serde(skip)]
    pub status: Option<serde_json::Value>,
}

impl Volume {
    /// The name of its driver.
    pub fn driver(&self) -> &str {
        if self.driver.is_empty() { LOCAL_DRIVER } else { &self.driver }
    }

    /// Says whether it is a plugin's.
    pub(crate) fn is_plugins(&self) -> bool {
        self.driver() != LOCAL_DRIVER
    }

    /// What is mounted while containers use it.
    fn mount(&self) -> Option<local::LocalMount> {
        local::LocalMount::of(&self.options).filter(|_| self.driver() == LOCAL_DRIVER)
    }

    /// Says whether its files are on a file system of their own while containers use it.
    pub(crate) fn is_mounted_when_used(&self) -> bool {
        self.is_plugins() || self.mount().is_some()
    }
}

/// A volume to make, or to find.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VolumeOrder {
    /// Empty: drawn.
    pub name: String,
    /// Empty: of one that is there its own, otherwise `local`.
    pub driver: String,
    /// What its driver is told, where it is made.
    pub options: Labels,
    pub labels: Labels,
}

/// All volumes of this engine. Calls block on the disk.
#[derive(Clone, Debug)]
pub(crate) struct Volumes {
    root: PathBuf,
    plugins: Plugins,
    /// Told of each that is made or removed.
    events: Events,
    /// Of the volumes that something is done to. Clones share them.
    busy: Arc<ByName<Busy>>,
}

/// What goes on with a volume.
#[derive(Debug, Default)]
struct Busy {
    /// Of whoever changes it.
    turn: Mutex<()>,
    /// The ids of containers that are being made with it.
    makers: Mutex<Vec<String>>,
}

impl Busy {
    fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Held for a moment only.
    fn makers(&self) -> MutexGuard<'_, Vec<String>> {
        self.makers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A volume is not removed while somebody has this: the container that is being made with it.
#[derive(Debug)]
pub(crate) struct Hold {
    busy: Arc<Busy>,
    maker: String,
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut makers = self.busy.makers();
        if let Some(at) = makers.iter().position(|maker| *maker == self.maker) {
            makers.swap_remove(at);
        }
    }
}

impl Volumes {
    pub(crate) fn new(root: PathBuf, plugins: Plugins, events: Events) -> Self {
        Self { root, plugins, events, busy: Arc::default() }
    }

    fn busy(&self, name: &str) -> Arc<Busy> {
        self.busy.get(name, Busy::default)
    }

    pub(crate) fn list(&self) -> Result<Vec<Volume>, Fault> {
        let entries = match fs::read_dir(&self.root) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(cannot("list volumes")(error)),
        };
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let mut volumes: Vec<Volume> = names.filter_map(|name| self.find(&name).ok()).collect();
        volumes.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(volumes)
    }

    pub(crate) fn find(&self, name: &str) -> Result<Volume, Fault> {
        let missing = || Fault::not_found(format!("get {name}: no such volume"));
        names::check("volume", name).map_err(|_invalid| missing())?;
        let folder = self.root.join(name);
        let text = fs::read(folder.join(FILE)).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => missing(),
            _ => cannot("read a volume")(error),
        })?;
        let volume: Volume = serde_json::from_slice(&text)
            .map_err(|error| Fault::internal(format!("volume {name} is damaged: {error}")))?;
        let path = if volume.is_plugins() { PathBuf::new() } else { folder.join(DATA) };
        Ok(Volume { path, ..volume })
    }

    /// Makes a volume, or finds the one of this name.
    pub(crate) fn make(&self, order: VolumeOrder) -> Result<Volume, Fault> {
        let wanted = wanted(order)?;
        let busy = self.busy(&wanted.name);
        let _turn = busy.turn();
        self.find_or_make(&wanted)
    }

    /// The same for a container that is being made, by its id.
    pub(crate) fn make_for(
        &self,
        order: VolumeOrder,
        maker: &str,
    ) -> Result<(Volume, Hold), Fault> {
        let wanted = wanted(order)?;
        let busy = self.busy(&wanted.name);
        let _turn = busy.turn();
        busy.makers().push(maker.to_owned());
        let hold = Hold { busy: Arc::clone(&busy), maker: maker.to_owned() };
        Ok((self.find_or_make(&wanted)?, hold))
    }

    /// Whoever calls this has the volume's turn.
    fn find_or_make(&self, wanted: &Volume) -> Result<Volume, Fault> {
        match self.find(&wanted.name) {
            Err(fault) if fault.kind == types::FaultKind::NotFound => {}
            Ok(found) => return same(wanted, found),
            Err(fault) => return Err(fault),
        }
        let create = |fault: Fault| {
            Fault::new(fault.kind, format!("create {}: {}", wanted.name, fault.message))
        };
        let wanted = self.with_driver(wanted.clone());
        let folder = self.root.join(&wanted.name);
        let path = if wanted.is_plugins() {
            let plugin = self.plugins.find(wanted.driver()).map_err(create)?;
            wait(plugin.create(&wanted.name, &wanted.options)).map_err(create)?;
            PathBuf::new()
        } else {
            local::check(&wanted.options).map_err(create)?;
            folder.join(DATA)
        };
        let volume = Volume { path, ..wanted.clone() };
        let written = record::private_folder(&self.root).and_then(|()| write(&folder, &volume));
        written.map_err(cannot("make a volume"))?;
        self.tell("create", &volume);
        Ok(volume)
    }

    /// A name without a driver is a plugin's volume where one has it, as those that all nodes share
    /// are made once.
    fn with_driver(&self, wanted: Volume) -> Volume {
        let is_open = wanted.driver.is_empty() && wanted.options.is_empty() && !wanted.anonymous;
        if !is_open || self.plugins.is_empty() {
            return wanted;
        }
        let found = self.plugin_with(&wanted.name);
        Volume { driver: found.unwrap_or_default(), ..wanted }
    }

    /// The plugin that has a volume of this name, if one has it.
    fn plugin_with(&self, name: &str) -> Option<String> {
        let found = wait(async {
            for plugin in self.plugins.drivers().await {
                if plugin.get(name).await.is_ok() {
                    return Ok(Some(plugin.name().to_owned()));
                }
            }
            Ok(None)
        });
        found.ok().flatten()
    }

    /// Fills a volume that is empty with what an image has at a target. It is mounted, where it is
    /// mounted when it is used.
    pub(crate) fn fill(
        &self,
        (name, path): (&str, &Path),
        root: &Path,
        target: &str,
    ) -> Result<(), Fault> {
        let busy = self.busy(name);
        let _turn = busy.turn();
        let volume = self.find(name)?;
        let place = if volume.is_mounted_when_used() {
            rootfs::Halfway::Within
        } else {
            rootfs::Halfway::Beside
        };
        let filled = rootfs::fill(root, target, path, place);
        filled.map_err(cannot("fill a volume from the image"))
    }

    fn tell(&self, action: &str, volume: &Volume) {
        let driver = BTreeMap::from([("driver".to_owned(), volume.driver().to_owned())]);
        self.events.tell(EventKind::Volume, action, &volume.name, driver);
    }
}

/// A volume as it is to be made, where there is none of this name.
fn wanted(order: VolumeOrder) -> Result<Volume, Fault> {
    let VolumeOrder { name, driver, options, labels } = order;
    let anonymous = name.is_empty();
    let name = if anonymous { clock::draw_id() } else { name };
    names::check("volume", &name)?;
    // It is the same driver, and known without it.
    let driver = driver.strip_suffix(":latest").map(str::to_owned).unwrap_or(driver);
    let created = clock::now();
    Ok(Volume { name, labels, created, anonymous, driver, options, ..Volume::default() })
}

/// Waits for a plugin, on a thread that may wait.
fn wait<T>(answer: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
    let runtime = tokio::runtime::Handle::try_current();
    runtime.map_err(|error| Fault::internal(error.to_string()))?.block_on(answer)
}

/// The volume that is there, unless it is asked for as another one. One that is only named is any.
fn same(wanted: &Volume, found: Volume) -> Result<Volume, Fault> {
    let name = &found.name;
    if !wanted.driver.is_empty() && wanted.driver() != found.driver() {
        return Err(Fault::conflict(format!(
            "create {name}: driver '{}' already has volume '{name}': volume name must be unique",
            found.driver()
        )));
    }
    if !wanted.options.is_empty() && wanted.options != found.options {
        return Err(Fault::conflict(format!(
            "create {name}: it is there already with other options: volume name must be unique: \
             remove the volume, or choose another name"
        )));
    }
    Ok(found)
}

/// The description comes last: a volume without one is not there.
fn write(folder: &Path, volume: &Volume) -> io::Result<()> {
    fs::create_dir_all(if volume.is_plugins() { folder } else { &volume.path })?;
    let text = serde_json::to_vec(volume).map_err(io::Error::other)?;
    host::replace(&folder.join(FILE), text, 0o600)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::Event;
    use futures_util::StreamExt;

    fn volumes(dir: &Path) -> Volumes {
        Volumes::new(dir.join("volumes"), Plugins::new(Vec::new()), Events::new())
    }

    fn named(name: &str) -> VolumeOrder {
        VolumeOrder { name: name.to_owned(), ..VolumeOrder::default() }
    }

    #[test]
    fn a_name_stands_for_one_volume_with_its_driver_and_its_options() {
        let dir = tempfile::tempdir().unwrap();
        let volumes = volumes(dir.path());
        let options = |o: &str| -> Labels {
            let pairs = [("type", "tmpfs"), ("device", "tmpfs"), ("o", o)];
            pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
        };
        let order = VolumeOrder { options: options("size=1m"), ..named("data") };
        let made = volumes.make(order.clone()).unwrap();
        assert_eq!(volumes.find("data").unwrap(), made);
        assert_eq!(made.driver(), "local");
        for same in [named("data"), order, VolumeOrder { driver: "local".into(), ..named("data") }]
        {
            assert_eq!(volumes.make(same).unwrap(), made);
        }
        let other = VolumeOrder { options: options("size=2m"), ..named("data") };
        let driver = VolumeOrder { driver: "other".into(), ..named("data") };
        for (order, said) in [
            (other, "create data: it is there already with other options: volume name must be"),
            (driver, "create data: driver 'local' already has volume 'data': volume name must be"),
        ] {
            let refused = volumes.make(order).unwrap_err();
            assert!(refused.message.starts_with(said), "{refused}");
            assert_eq!(refused.kind, types::FaultKind::Conflict);
        }
        let unknown = VolumeOrder { options: [("foo".into(), "1".into())].into(), ..named("bad") };
        let refused = volumes.make(unknown).unwrap_err();
        assert_eq!(refused.message, "create bad: invalid option: \"foo\"");
        assert!(volumes.find("bad").is_err(), "nothing is left of it");
    }

    /// What was told, e.g. `create data`.
    async fn told(volumes: &Volumes) -> Vec<String> {
        let all = volumes.events.listen(Some(Timestamp(0)), Some(clock::now()));
        let line = |event: Event| format!("{} {}", event.action, event.id);
        all.map(|event| line(event.unwrap())).collect().await
    }

    #[tokio::test]
    async fn a_volume_is_made_once_found_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let volumes = volumes(dir.path());
        assert!(volumes.list().unwrap().is_empty());
        let made = volumes.make(named("data")).unwrap();
        assert!(made.path.is_dir() && !made.anonymous);
        assert_eq!(volumes.make(named("data")).unwrap(), made);
        let other = volumes.make(named("")).unwrap();
        assert!(other.anonymous);
        assert_eq!(volumes.list().unwrap().len(), 2);
        volumes.remove("data", false, |_| None).unwrap();
        assert_eq!(volumes.find("data").unwrap_err().message, "get data: no such volume");
        assert!(volumes.make(named("../data")).is_err());
        let all =
            ["create data".to_owned(), format!("create {}", other.name), "destroy data".into()];
        assert_eq!(told(&volumes).await, all);
    }

    #[test]
    fn a_volume_that_somebody_has_or_is_about_to_have_stays() {
        let dir = tempfile::tempdir().unwrap();
        let volumes = volumes(dir.path());
        let hold = |maker: &str| volumes.make_for(named("data"), maker).unwrap().1;
        let (one, twice, other) = (hold("one"), hold("one"), hold("other"));
        let refused = |user: Option<&str>| {
            let user = user.map(str::to_owned);
            volumes.remove("data", false, |_| user).unwrap_err().message
        };
        assert_eq!(refused(None), "remove data: volume is in use - [one]");
        drop((one, twice));
        assert_eq!(refused(None), "remove data: volume is in use - [other]");
        drop(other);
        assert_eq!(refused(Some("user")), "remove data: volume is in use - [user]");
        volumes.remove("data", false, |_| None).unwrap();
    }

    #[tokio::test]
    async fn those_who_want_the_same_new_volume_at_once_get_it_whole() {
        let dir = tempfile::tempdir().unwrap();
        let volumes = volumes(dir.path());
        let image = dir.path().join("image");
        fs::create_dir_all(image.join("data")).unwrap();
        for number in 0..50 {
            fs::write(image.join(format!("data/{number}")), "text").unwrap();
        }
        let barrier = std::sync::Barrier::new(8);
        let start = || {
            barrier.wait();
            let volume = volumes.make(named("shared")).unwrap();
            volumes.fill(("shared", &volume.path), &image, "/data").unwrap();
            assert_eq!(fs::read_dir(&volume.path).unwrap().count(), 50);
        };
        std::thread::scope(|threads| {
            for _ in 0..8 {
                threads.spawn(start);
            }
        });
        assert_eq!(told(&volumes).await, ["create shared"]);
        assert_eq!(fs::read_dir(dir.path().join("volumes/shared")).unwrap().count(), 2);
    }
}
