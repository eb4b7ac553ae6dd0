//! What must survive the daemon: what is attached here, and what was known last.
//!
//! Two files, because they change at different times. Each is written to a temporary file, synced
//! and renamed: a crash leaves the old or the new one, never half of it.

use crate::error::{BoxError, Error};
use crate::handle::Identity;
use discovery::{Knowledge, Sandbox};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use tokio::fs::{self, File};
use tokio::io::AsyncWriteExt;
use types::TaskId;

/// What this node knows of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Local {
    pub(crate) identity: Option<Identity>,
    pub(crate) sandboxes: BTreeMap<String, Sandbox>,
    pub(crate) withdrawn: BTreeSet<TaskId>,
}

pub(crate) struct Journal {
    dir: PathBuf,
}

impl Journal {
    pub(crate) async fn open(dir: &Path) -> Result<Self, Error> {
        let failed = |source: std::io::Error| failed(dir, source.into());
        fs::create_dir_all(dir).await.map_err(failed)?;
        Ok(Self { dir: dir.to_owned() })
    }

    pub(crate) async fn load(&self) -> Result<(Local, Knowledge), Error> {
        Ok((read(&self.local()).await?, read(&self.knowledge()).await?))
    }

    pub(crate) async fn save_local(&self, local: &Local) -> Result<(), Error> {
        write(&self.local(), local).await
    }

    pub(crate) async fn save_knowledge(&self, known: &Knowledge) -> Result<(), Error> {
        write(&self.knowledge(), known).await
    }

    fn local(&self) -> PathBuf {
        self.dir.join("local.msgpack")
    }

    fn knowledge(&self) -> PathBuf {
        self.dir.join("knowledge.msgpack")
    }
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
        let journal = Journal::open(dir.path()).await.unwrap();
        assert_eq!(journal.load().await.unwrap(), Default::default());
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
            withdrawn: BTreeSet::from(["t9".into()]),
        };
        let mut known = Knowledge::default();
        let net = "10.0.1.0/24".parse().unwrap();
        let subnet = Some(types::Subnet { net, gateway: [10, 0, 1, 1].into() });
        known.networks.insert("net".into(), NetworkView { subnet, ..NetworkView::default() });
        let port = MeshPort { service: "web".into(), target: 80, tasks: BTreeSet::new() };
        known.mesh.ports.insert((Protocol::Tcp, 8080), port);
        journal.save_local(&local).await.unwrap();
        journal.save_knowledge(&known).await.unwrap();
        assert_eq!(journal.load().await.unwrap(), (local, known));
    }

    #[tokio::test]
    async fn a_damaged_journal_is_told_with_its_path() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("local.msgpack"), b"\xc1").unwrap();
        let journal = Journal::open(dir.path()).await.unwrap();
        let error = journal.load().await.unwrap_err().to_string();
        assert!(error.contains("local.msgpack"), "{error}");
    }
}
