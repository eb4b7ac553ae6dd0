//! What a node remembers of its membership over restarts.

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

/// A node's part in a cluster, besides its certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct State {
    /// Where other nodes reach this one.
    pub(crate) address: IpAddr,
    /// Where the overlays' traffic goes, if that is another address.
    #[serde(default)]
    pub(crate) data_path_address: Option<IpAddr>,
    /// Where a manager listens for nodes.
    pub(crate) listen: SocketAddr,
    /// RPC addresses of managers, as last heard.
    pub(crate) managers: Vec<String>,
    pub(crate) data_path_port: u16,
    pub(crate) manager: bool,
    /// A manager's number in the log's membership; 0 where an older release wrote this.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(crate) raft_id: u64,
    /// The port at which managers and nodes reach a manager; 0: the one it listens on.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(crate) port: u16,
    /// A manager is to go on alone when it starts next: all others are lost.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(crate) alone: bool,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// The files of a membership, below the data folder.
#[derive(Clone, Debug)]
pub(crate) struct Files {
    data: PathBuf,
}

impl State {
    /// This node's VXLAN end point.
    pub(crate) fn vtep(&self) -> IpAddr {
        self.data_path_address.unwrap_or(self.address)
    }

    /// Where managers and nodes reach this one as a manager, `host:port`.
    pub(crate) fn manager_address(&self) -> String {
        let port = if self.port == 0 { self.listen.port() } else { self.port };
        SocketAddr::new(self.address, port).to_string()
    }

    /// The number in the log's membership of a manager.
    pub(crate) fn raft_id(&self) -> u64 {
        self.raft_id.max(raft::FIRST_MEMBER)
    }
}

impl Files {
    pub(crate) fn new(data: &Path) -> Self {
        Self { data: data.to_owned() }
    }

    pub(crate) fn certificates(&self) -> PathBuf {
        self.data.join("certificates")
    }

    pub(crate) fn raft(&self) -> PathBuf {
        self.data.join("raft")
    }

    pub(crate) fn agent(&self) -> PathBuf {
        self.data.join("agent")
    }

    fn state(&self) -> PathBuf {
        self.data.join("state.json")
    }

    /// What is remembered; `None` outside a cluster.
    pub(crate) fn load(&self) -> Result<Option<State>> {
        let path = self.state();
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", path.display()));
            }
        };
        let state = serde_json::from_slice(&text)
            .with_context(|| format!("{} is damaged: move it away", path.display()))?;
        Ok(Some(state))
    }

    /// Remembers: whole or not at all.
    pub(crate) async fn save(&self, state: &State) -> Result<()> {
        let (files, state) = (self.clone(), state.clone());
        tokio::task::spawn_blocking(move || files.write(&state)).await?
    }

    /// Forgets the cluster.
    pub(crate) async fn remove(&self) -> Result<()> {
        let files = self.clone();
        tokio::task::spawn_blocking(move || files.delete()).await?
    }

    fn write(&self, state: &State) -> Result<()> {
        let (path, text) = (self.state(), serde_json::to_vec_pretty(state)?);
        host::replace(&path, text, 0o600)
            .with_context(|| format!("cannot write {}", path.display()))
    }

    /// Forgets the cluster's log.
    pub(crate) async fn remove_log(&self) -> Result<()> {
        let folder = self.raft();
        tokio::task::spawn_blocking(move || remove_folder(&folder)).await?
    }

    /// The state goes first: without it nothing else counts.
    fn delete(&self) -> Result<()> {
        gone(fs::remove_file(self.state())).context("cannot forget the cluster")?;
        [self.certificates(), self.raft(), self.agent()]
            .iter()
            .try_for_each(|folder| remove_folder(folder))
    }
}

fn remove_folder(folder: &Path) -> Result<()> {
    gone(fs::remove_dir_all(folder)).with_context(|| format!("cannot remove {}", folder.display()))
}

/// What was not there is gone.
fn gone(removed: std::io::Result<()>) -> std::io::Result<()> {
    match removed {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> State {
        State {
            address: [192, 168, 100, 2].into(),
            data_path_address: Some([10, 9, 0, 2].into()),
            listen: "0.0.0.0:2377".parse().unwrap(),
            managers: vec!["192.168.100.2:2377".into()],
            data_path_port: 4789,
            manager: true,
            raft_id: 0,
            port: 0,
            alone: false,
        }
    }

    #[test]
    fn a_manager_is_found_where_it_listens_unless_it_says_otherwise() {
        let mut state = state();
        state.listen = "0.0.0.0:2400".parse().unwrap();
        assert_eq!(state.manager_address(), "192.168.100.2:2400");
        assert_eq!(state.raft_id(), 1, "older releases had one manager");
        (state.port, state.raft_id) = (2377, 3);
        assert_eq!((state.manager_address().as_str(), state.raft_id()), ("192.168.100.2:2377", 3));
    }

    #[tokio::test]
    async fn a_membership_is_remembered_and_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let files = Files::new(folder.path());
        assert_eq!(files.load().unwrap(), None);
        files.save(&state()).await.unwrap();
        assert_eq!(files.load().unwrap(), Some(state()));
        files.remove().await.unwrap();
        files.remove().await.unwrap();
        assert_eq!(files.load().unwrap(), None);
    }

    #[test]
    fn memberships_of_every_format_are_read() {
        let mut stored = stored::Stored::of(env!("CARGO_MANIFEST_DIR"));
        let name = "state.json";
        stored.present(name, &serde_json::to_vec_pretty(&state()).unwrap());
        for (format, bytes) in stored.former(name) {
            let folder = tempfile::tempdir().unwrap();
            fs::write(folder.path().join(name), bytes).unwrap();
            let read = Files::new(folder.path()).load().unwrap();
            stored.reads(&format, name, &(serde_json::to_string_pretty(&read).unwrap() + "\n"));
        }
        stored.finish(&[("0.1.0-format1", "d7fefccde827481f")]);
    }

    /// The only thread for what blocks waits for the disk.
    #[test]
    fn a_disk_that_hangs_stops_nobody_else() {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.max_blocking_threads(1).build().unwrap().block_on(async {
            let (disk, hangs) = std::sync::mpsc::channel::<()>();
            let waits = tokio::task::spawn_blocking(move || hangs.recv());
            let folder = tempfile::tempdir().unwrap();
            let files = Files::new(folder.path());
            let state = state();
            let mut saved = std::pin::pin!(files.save(&state));
            let looked = std::future::poll_fn(|context| {
                std::task::Poll::Ready(saved.as_mut().poll(context).is_pending())
            });
            assert!(looked.await, "it is written by whoever waits for it");
            drop(disk);
            waits.await.unwrap().unwrap_err();
            saved.await.unwrap();
        });
    }
}
