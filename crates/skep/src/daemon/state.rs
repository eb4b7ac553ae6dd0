//! What a node remembers of its membership over restarts.

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

/// A node's part in a cluster, besides its certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct State {
    /// Where other nodes reach this one.
    pub(crate) address: Ipv4Addr,
    /// Where the overlays' traffic goes, if that is another address.
    #[serde(default)]
    pub(crate) data_path_address: Option<Ipv4Addr>,
    /// Where a manager listens for nodes.
    pub(crate) listen: SocketAddr,
    /// RPC addresses of managers, as last heard.
    pub(crate) managers: Vec<String>,
    pub(crate) data_path_port: u16,
    pub(crate) manager: bool,
}

/// The files of a membership, below the data folder.
#[derive(Clone, Debug)]
pub(crate) struct Files {
    data: PathBuf,
}

impl State {
    /// This node's VXLAN end point.
    pub(crate) fn vtep(&self) -> Ipv4Addr {
        self.data_path_address.unwrap_or(self.address)
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
    pub(crate) fn save(&self, state: &State) -> Result<()> {
        let (path, new) = (self.state(), self.data.join("state.json.new"));
        let write = || -> std::io::Result<()> {
            let mut file = File::create(&new)?;
            file.write_all(&serde_json::to_vec_pretty(state)?)?;
            file.sync_all()?;
            fs::rename(&new, &path)?;
            File::open(&self.data)?.sync_all()
        };
        write().with_context(|| format!("cannot write {}", path.display()))
    }

    /// Forgets the cluster. The state goes first: without it nothing else counts.
    pub(crate) fn remove(&self) -> Result<()> {
        let gone = |result: std::io::Result<()>| match result {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        };
        gone(fs::remove_file(self.state())).context("cannot forget the cluster")?;
        for folder in [self.certificates(), self.raft(), self.agent()] {
            gone(fs::remove_dir_all(&folder))
                .with_context(|| format!("cannot remove {}", folder.display()))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_membership_is_remembered_and_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let files = Files::new(folder.path());
        assert_eq!(files.load().unwrap(), None);
        let state = State {
            address: [192, 168, 100, 2].into(),
            data_path_address: Some([10, 9, 0, 2].into()),
            listen: "0.0.0.0:2377".parse().unwrap(),
            managers: vec!["192.168.100.2:2377".into()],
            data_path_port: 4789,
            manager: true,
        };
        files.save(&state).unwrap();
        assert_eq!(files.load().unwrap(), Some(state));
        files.remove().unwrap();
        files.remove().unwrap();
        assert_eq!(files.load().unwrap(), None);
    }
}
