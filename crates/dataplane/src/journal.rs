//! What must survive the daemon: what is attached here, and what was known last.
//!
//! A file for each sandbox and each network, one for the mesh and one for the node itself: a change
//! costs what changed. Each is written to a temporary file, synced and renamed: a crash leaves the
//! old or the new one, never half of it. Since everything is derived whole, files of different times
//! do no harm: managers say again what is missing.

use crate::error::{BoxError, Error};
use crate::handle::Identity;
use discovery::{Knowledge, Mesh, NetworkView, OrdSet, Sandbox};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::{Path, PathBuf};
use tokio::fs::{self, File};
use tokio::io::AsyncWriteExt;
use types::{NetworkId, TaskId};

const SUFFIX: &str = "msgpack";

/// What this node knows of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Local {
    pub(crate) identity: Option<Identity>,
    /// In files of their own.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) sandboxes: BTreeMap<String, Sandbox>,
    #[serde(alias = "withdrawn")]
    pub(crate) hidden: OrdSet<TaskId>,
}

pub(crate) struct Journal {
    dir: PathBuf,
    /// What is on disk; the node without its sandboxes.
    node: Local,
    sandboxes: BTreeMap<String, Sandbox>,
    networks: BTreeMap<NetworkId, NetworkView>,
    mesh: Mesh,
}

impl Journal {
    pub(crate) async fn open(dir: &Path) -> Result<Self, Error> {
        for folder in [dir, &dir.join("sandboxes"), &dir.join("networks")] {
            let made = fs::create_dir_all(folder).await;
            made.map_err(|source| failed(folder, source.into()))?;
        }
        let mut journal = Self {
            dir: dir.to_owned(),
            node: Local::default(),
            sandboxes: BTreeMap::new(),
            networks: BTreeMap::new(),
            mesh: Mesh::default(),
        };
        journal.node = read(&journal.file("node")).await?;
        journal.mesh = read(&journal.file("mesh")).await?;
        journal.sandboxes = read_all(&dir.join("sandboxes")).await?;
        journal.networks = read_all(&dir.join("networks")).await?;
        journal.take_over().await?;
        Ok(journal)
    }

    /// Takes over what a former version wrote into two files.
    async fn take_over(&mut self) -> Result<(), Error> {
        let (local, known) = (self.file("local"), self.file("knowledge"));
        if fs::try_exists(&local).await.unwrap_or(false) {
            self.save_local(&read(&local).await?).await?;
            remove(&local).await?;
        }
        if fs::try_exists(&known).await.unwrap_or(false) {
            self.save_knowledge(&read(&known).await?).await?;
            remove(&known).await?;
        }
        Ok(())
    }

    /// What was saved last.
    pub(crate) fn load(&self) -> (Local, Knowledge) {
        let mut local = self.node.clone();
        local.sandboxes.clone_from(&self.sandboxes);
        (local, Knowledge { networks: self.networks.clone(), mesh: self.mesh.clone() })
    }

    pub(crate) async fn save_local(&mut self, local: &Local) -> Result<(), Error> {
        let node = Local {
            identity: local.identity.clone(),
            hidden: local.hidden.clone(),
            sandboxes: BTreeMap::new(),
        };
        if node != self.node {
            write(&self.file("node"), &node).await?;
            self.node = node;
        }
        let folder = self.dir.join("sandboxes");
        follow(&folder, &mut self.sandboxes, &local.sandboxes).await
    }

    pub(crate) async fn save_knowledge(&mut self, known: &Knowledge) -> Result<(), Error> {
        if known.mesh != self.mesh {
            write(&self.file("mesh"), &known.mesh).await?;
            self.mesh = known.mesh.clone();
        }
        let folder = self.dir.join("networks");
        follow(&folder, &mut self.networks, &known.networks).await
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name).with_extension(SUFFIX)
    }
}

/// Makes a folder hold what is wanted, where it differs.
async fn follow<K: Clone + Display + Ord, V: Clone + PartialEq + Serialize>(
    folder: &Path,
    saved: &mut BTreeMap<K, V>,
    wanted: &BTreeMap<K, V>,
) -> Result<(), Error> {
    let path = |name: &K| folder.join(format!("{name}.{SUFFIX}"));
    let gone: Vec<K> = saved.keys().filter(|name| !wanted.contains_key(*name)).cloned().collect();
    for name in gone {
        remove(&path(&name)).await?;
        saved.remove(&name);
    }
    for (name, value) in wanted {
        if saved.get(name) != Some(value) {
            write(&path(name), value).await?;
            saved.insert(name.clone(), value.clone());
        }
    }
    Ok(())
}

async fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path).await {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(failed(path, error.into()))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

async fn read_all<K: From<String> + Ord, V: DeserializeOwned>(
    folder: &Path,
) -> Result<BTreeMap<K, V>, Error> {
    let unreadable =
        |source: std::io::Error| Error::Journal { path: folder.to_owned(), source: source.into() };
    let mut all = BTreeMap::new();
    let mut files = fs::read_dir(folder).await.map_err(unreadable)?;
    while let Some(file) = files.next_entry().await.map_err(unreadable)? {
        let path = file.path();
        // Not a draft that a crash has left.
        let is_whole = path.extension().is_some_and(|suffix| suffix == SUFFIX);
        let name = path.file_stem().and_then(|name| name.to_str()).filter(|_| is_whole);
        let Some(name) = name else { continue };
        if let Some(value) = read::<Option<V>>(&path).await? {
            all.insert(K::from(name.to_owned()), value);
        }
    }
    Ok(all)
}

fn failed(path: &Path, source: BoxError) -> Error {
    Error::JournalWrite { path: path.to_owned(), source }
}

async fn read<T: DeserializeOwned + Default>(path: &Path) -> Result<T, Error> {
    let failed = |source: BoxError| Error::Journal { path: path.to_owned(), source };
    match fs::read(path).await {
        Ok(bytes) => rmp_serde::from_slice(&bytes).map_err(|error| failed(error.into())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(T::default()),
        Err(error) => Err(failed(error.into())),
    }
}

async fn write<T: Serialize>(path: &Path, value: &T) -> Result<(), Error> {
    let bytes = rmp_serde::to_vec_named(value).map_err(|error| failed(path, error.into()))?;
    replace(path, &bytes).await.map_err(|error| failed(path, error.into()))
}

async fn replace(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let draft = path.with_extension("new");
    let mut file = File::create(&draft).await?;
    file.write_all(bytes).await?;
    file.sync_all().await?;
    fs::rename(&draft, path).await?;
    // The rename itself lasts when the folder is on disk.
    match path.parent() {
        Some(dir) => File::open(dir).await?.sync_all().await,
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use discovery::{MeshPort, NetworkView};
    use types::Protocol;

    #[tokio::test]
    async fn what_was_saved_is_loaded_again() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(dir.path()).await.unwrap();
        assert_eq!(journal.load(), Default::default());
        let identity =
            Identity { node: "n1".into(), address: [192, 168, 0, 1].into(), data_path_port: 4789 };
        let sandbox = Sandbox {
            task: Some("t1".into()),
            netns: "/run/netns/c1".to_owned(),
            gateway_address: [172, 30, 0, 2].into(),
            attachments: Vec::new(),
            dns_port: 40000,
            host_ports: vec![(Protocol::Udp, 53, 53)],
            nameservers: vec![[192, 0, 2, 53].into()],
        };
        let local = Local {
            identity: Some(identity),
            sandboxes: BTreeMap::from([("c1".to_owned(), sandbox)]),
            hidden: OrdSet::unit("t9".into()),
        };
        let mut known = Knowledge::default();
        let net = "10.0.1.0/24".parse().unwrap();
        let subnet = Some(types::Subnet { net, gateway: [10, 0, 1, 1].into() });
        known.networks.insert("net".into(), NetworkView { subnet, ..NetworkView::default() });
        let port = MeshPort { service: "web".into(), target: 80, tasks: OrdSet::new() };
        known.mesh.ports.insert((Protocol::Tcp, 8080), port);
        journal.save_local(&local).await.unwrap();
        journal.save_knowledge(&known).await.unwrap();
        assert_eq!(journal.load(), (local.clone(), known.clone()));
        let again = Journal::open(dir.path()).await.unwrap();
        assert_eq!(again.load(), (local, known));
    }

    #[tokio::test]
    async fn a_change_writes_what_changed() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(dir.path()).await.unwrap();
        let sandbox = |port| Sandbox {
            task: None,
            netns: "/run/netns/c".to_owned(),
            gateway_address: [172, 30, 0, 2].into(),
            attachments: Vec::new(),
            dns_port: port,
            host_ports: Vec::new(),
            nameservers: Vec::new(),
        };
        let mut local = Local::default();
        local.sandboxes.extend((0..500).map(|number| (format!("c{number}"), sandbox(1))));
        let mut known = Knowledge::default();
        let network = |name: &str| NetworkView { name: name.to_owned(), ..NetworkView::default() };
        known.networks.insert("one".into(), network("one"));
        known.networks.insert("two".into(), network("two"));
        journal.save_local(&local).await.unwrap();
        journal.save_knowledge(&known).await.unwrap();
        // What is not written again stays away.
        std::fs::remove_file(dir.path().join("sandboxes/c1.msgpack")).unwrap();
        std::fs::remove_file(dir.path().join("networks/one.msgpack")).unwrap();
        std::fs::remove_file(dir.path().join("mesh.msgpack")).ok();
        local.sandboxes.insert("c7".to_owned(), sandbox(2));
        local.sandboxes.remove("c8");
        known.networks.insert("two".into(), network("other"));
        journal.save_local(&local).await.unwrap();
        journal.save_knowledge(&known).await.unwrap();
        journal.save_local(&local).await.unwrap();
        local.sandboxes.remove("c1");
        known.networks.remove(&"one".into());
        let again = Journal::open(dir.path()).await.unwrap();
        assert_eq!(again.load(), (local, known));
    }

    #[tokio::test]
    async fn what_a_former_version_wrote_is_taken_over() {
        let dir = tempfile::tempdir().unwrap();
        let mut known = Knowledge::default();
        known.networks.insert("net".into(), NetworkView::default());
        let local = Local { hidden: OrdSet::unit("t9".into()), ..Local::default() };
        write(&dir.path().join("local.msgpack"), &local).await.unwrap();
        write(&dir.path().join("knowledge.msgpack"), &known).await.unwrap();
        for _ in 0..2 {
            let journal = Journal::open(dir.path()).await.unwrap();
            assert_eq!(journal.load(), (local.clone(), known.clone()));
        }
        assert!(!dir.path().join("local.msgpack").exists());
    }

    #[tokio::test]
    async fn a_damaged_journal_is_told_with_its_path() {
        let dir = tempfile::tempdir().unwrap();
        drop(Journal::open(dir.path()).await.unwrap());
        std::fs::write(dir.path().join("sandboxes/c1.msgpack"), b"\xc1").unwrap();
        let error = Journal::open(dir.path()).await.err().unwrap().to_string();
        assert!(error.contains("sandboxes/c1.msgpack"), "{error}");
    }
}
