//! Volumes: directories with names.
//!
//! Containers that start at once may share a volume that is not there yet: making, filling and
//! removing one volume takes turns.

use crate::blocking::cannot;
use crate::by_name::ByName;
use crate::events::{EventKind, Events};
use crate::{clock, names, record, rootfs};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use types::{Fault, Labels, Timestamp};

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
    /// Where its files are.
    #[serde(skip)]
    pub path: PathBuf,
}

/// All volumes of this engine. Calls block on the disk.
#[derive(Clone, Debug)]
pub(crate) struct Volumes {
    root: PathBuf,
    /// Told of each that is made or removed.
    events: Events,
    /// Of the volumes that something is done to. Clones share them.
    locks: Arc<ByName<Mutex<()>>>,
}

impl Volumes {
    pub(crate) fn new(root: PathBuf, events: Events) -> Self {
        Self { root, events, locks: Arc::default() }
    }

    /// What whoever changes the volume of this name locks.
    fn lock_of(&self, name: &str) -> Arc<Mutex<()>> {
        self.locks.get(name, Mutex::default)
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
        Ok(Volume { path: folder.join(DATA), ..volume })
    }

    /// Makes a volume, or finds the one of this name. An empty name is drawn.
    pub(crate) fn make(&self, name: &str, labels: Labels) -> Result<Volume, Fault> {
        let anonymous = name.is_empty();
        let name = if anonymous { clock::draw_id() } else { name.to_owned() };
        names::check("volume", &name)?;
        let lock = self.lock_of(&name);
        let _held = lock.lock().unwrap_or_else(PoisonError::into_inner);
        match self.find(&name) {
            Ok(volume) => return Ok(volume),
            Err(fault) if fault.kind == types::FaultKind::NotFound => {}
            Err(fault) => return Err(fault),
        }
        let folder = self.root.join(&name);
        let path = folder.join(DATA);
        let volume = Volume { name, labels, created: clock::now(), anonymous, path };
        let written = record::private_folder(&self.root).and_then(|()| write(&folder, &volume));
        written.map_err(cannot("make a volume"))?;
        self.tell("create", &volume.name);
        Ok(volume)
    }

    /// Fills a volume that is empty with what an image has at a target.
    pub(crate) fn fill(&self, name: &str, root: &Path, target: &str) -> Result<(), Fault> {
        let lock = self.lock_of(name);
        let _held = lock.lock().unwrap_or_else(PoisonError::into_inner);
        let volume = self.find(name)?;
        rootfs::fill(root, target, &volume.path).map_err(cannot("fill a volume from the image"))
    }

    pub(crate) fn remove(&self, name: &str) -> Result<(), Fault> {
        let lock = self.lock_of(name);
        let _held = lock.lock().unwrap_or_else(PoisonError::into_inner);
        let volume = self.find(name)?;
        let removed = fs::remove_dir_all(self.root.join(&volume.name));
        removed.map_err(cannot("remove a volume"))?;
        self.tell("destroy", &volume.name);
        Ok(())
    }

    fn tell(&self, action: &str, name: &str) {
        self.events.tell(EventKind::Volume, action, name, BTreeMap::new());
    }
}

/// The description comes last: a volume without one is not there.
fn write(folder: &Path, volume: &Volume) -> io::Result<()> {
    fs::create_dir_all(&volume.path)?;
    let text = serde_json::to_vec(volume).map_err(io::Error::other)?;
    host::replace(&folder.join(FILE), text, 0o600)
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::StreamExt;

    fn volumes(dir: &Path) -> Volumes {
        Volumes::new(dir.join("volumes"), Events::new())
    }

    /// What was told, e.g. `create data`.
    async fn told(volumes: &Volumes) -> Vec<String> {
        let all = volumes.events.listen(Some(Timestamp(0)), Some(clock::now()));
        all.map(|event| format!("{} {}", event.action, event.id)).collect().await
    }

    #[tokio::test]
    async fn a_volume_is_made_once_found_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let volumes = volumes(dir.path());
        assert!(volumes.list().unwrap().is_empty());
        let made = volumes.make("data", Labels::new()).unwrap();
        assert!(made.path.is_dir() && !made.anonymous);
        assert_eq!(volumes.make("data", Labels::new()).unwrap(), made);
        let other = volumes.make("", Labels::new()).unwrap();
        assert!(other.anonymous);
        assert_eq!(volumes.list().unwrap().len(), 2);
        volumes.remove("data").unwrap();
        assert_eq!(volumes.find("data").unwrap_err().message, "get data: no such volume");
        assert!(volumes.make("../data", Labels::new()).is_err());
        let all =
            ["create data".to_owned(), format!("create {}", other.name), "destroy data".into()];
        assert_eq!(told(&volumes).await, all);
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
            let volume = volumes.make("shared", Labels::new()).unwrap();
            volumes.fill("shared", &image, "/data").unwrap();
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
