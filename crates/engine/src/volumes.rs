//! Volumes: directories with names.
//!
//! Containers that start at once may share a volume that is not there yet: making, filling and
//! removing one volume takes turns. A container that is being made holds its volumes ([`Hold`]) until
//! it is known with them: nobody removes them before.

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
    pub(crate) fn new(root: PathBuf, events: Events) -> Self {
        Self { root, events, busy: Arc::default() }
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
        Ok(Volume { path: folder.join(DATA), ..volume })
    }

    /// Makes a volume, or finds the one of this name. An empty name is drawn.
    pub(crate) fn make(&self, name: &str, labels: Labels) -> Result<Volume, Fault> {
        let wanted = wanted(name, labels)?;
        let busy = self.busy(&wanted.name);
        let _turn = busy.turn();
        self.find_or_make(wanted)
    }

    /// The same for a container that is being made, by its id.
    pub(crate) fn make_for(
        &self,
        name: &str,
        labels: Labels,
        maker: &str,
    ) -> Result<(Volume, Hold), Fault> {
        let wanted = wanted(name, labels)?;
        let busy = self.busy(&wanted.name);
        let _turn = busy.turn();
        busy.makers().push(maker.to_owned());
        let hold = Hold { busy: Arc::clone(&busy), maker: maker.to_owned() };
        Ok((self.find_or_make(wanted)?, hold))
    }

    /// Whoever calls this has the volume's turn.
    fn find_or_make(&self, wanted: Volume) -> Result<Volume, Fault> {
        match self.find(&wanted.name) {
            Err(fault) if fault.kind == types::FaultKind::NotFound => {}
            found => return found,
        }
        let folder = self.root.join(&wanted.name);
        let volume = Volume { path: folder.join(DATA), ..wanted };
        let written = record::private_folder(&self.root).and_then(|()| write(&folder, &volume));
        written.map_err(cannot("make a volume"))?;
        self.tell("create", &volume.name);
        Ok(volume)
    }

    /// Fills a volume that is empty with what an image has at a target.
    pub(crate) fn fill(&self, name: &str, root: &Path, target: &str) -> Result<(), Fault> {
        let busy = self.busy(name);
        let _turn = busy.turn();
        let volume = self.find(name)?;
        rootfs::fill(root, target, &volume.path).map_err(cannot("fill a volume from the image"))
    }

    /// Removes a volume that no container has: neither one that is being made, nor one that `user`
    /// finds, which is asked after that and says its id.
    pub(crate) fn remove(
        &self,
        name: &str,
        user: impl FnOnce(&Volume) -> Option<String>,
    ) -> Result<(), Fault> {
        let busy = self.busy(name);
        let _turn = busy.turn();
        let volume = self.find(name)?;
        // In this order: a container is known before it lets go.
        let maker = busy.makers().first().cloned();
        if let Some(id) = maker.or_else(|| user(&volume)) {
            return Err(Fault::conflict(format!("remove {name}: volume is in use - [{id}]")));
        }
        let removed = fs::remove_dir_all(self.root.join(&volume.name));
        removed.map_err(cannot("remove a volume"))?;
        self.tell("destroy", &volume.name);
        Ok(())
    }

    fn tell(&self, action: &str, name: &str) {
        let driver = BTreeMap::from([("driver".to_owned(), "local".to_owned())]);
        self.events.tell(EventKind::Volume, action, name, driver);
    }
}

/// A volume as it is to be made, where there is none of this name.
fn wanted(name: &str, labels: Labels) -> Result<Volume, Fault> {
    let anonymous = name.is_empty();
    let name = if anonymous { clock::draw_id() } else { name.to_owned() };
    names::check("volume", &name)?;
    Ok(Volume { name, labels, created: clock::now(), anonymous, path: PathBuf::new() })
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
    use crate::events::Event;
    use futures_util::StreamExt;

    fn volumes(dir: &Path) -> Volumes {
        Volumes::new(dir.join("volumes"), Events::new())
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
        let made = volumes.make("data", Labels::new()).unwrap();
        assert!(made.path.is_dir() && !made.anonymous);
        assert_eq!(volumes.make("data", Labels::new()).unwrap(), made);
        let other = volumes.make("", Labels::new()).unwrap();
        assert!(other.anonymous);
        assert_eq!(volumes.list().unwrap().len(), 2);
        volumes.remove("data", |_| None).unwrap();
        assert_eq!(volumes.find("data").unwrap_err().message, "get data: no such volume");
        assert!(volumes.make("../data", Labels::new()).is_err());
        let all =
            ["create data".to_owned(), format!("create {}", other.name), "destroy data".into()];
        assert_eq!(told(&volumes).await, all);
    }

    #[test]
    fn a_volume_that_somebody_has_or_is_about_to_have_stays() {
        let dir = tempfile::tempdir().unwrap();
        let volumes = volumes(dir.path());
        let hold = |maker: &str| volumes.make_for("data", Labels::new(), maker).unwrap().1;
        let (one, twice, other) = (hold("one"), hold("one"), hold("other"));
        let refused = |user: Option<&str>| {
            let user = user.map(str::to_owned);
            volumes.remove("data", |_| user).unwrap_err().message
        };
        assert_eq!(refused(None), "remove data: volume is in use - [one]");
        drop((one, twice));
        assert_eq!(refused(None), "remove data: volume is in use - [other]");
        drop(other);
        assert_eq!(refused(Some("user")), "remove data: volume is in use - [user]");
        volumes.remove("data", |_| None).unwrap();
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
