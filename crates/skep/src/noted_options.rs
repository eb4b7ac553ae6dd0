//! What a daemon was started with that says what it has on the machine: it notes that in its data
//! folder, so that `skep uninstall` need not be told again.

use crate::daemon::Options;
use anyhow::{Context, Result};
use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Options of the daemon, as [`Options`] has them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NotedOptions {
    pub(crate) run: PathBuf,
    pub(crate) netns: Option<PathBuf>,
    /// `None`: one of its own.
    pub(crate) containerd: Option<PathBuf>,
    pub(crate) containerd_namespace: String,
    pub(crate) gateway_subnet: Ipv4Net,
    pub(crate) cgroup_parent: String,
    pub(crate) docker_socket: Option<PathBuf>,
}

impl NotedOptions {
    /// Notes what a daemon is started with.
    pub(crate) fn note(options: &Options) -> Result<()> {
        let noted = Self {
            run: absolute(&options.run)?,
            netns: options.netns.as_deref().map(absolute).transpose()?,
            containerd: options.containerd.as_deref().map(absolute).transpose()?,
            containerd_namespace: options.containerd_namespace.clone(),
            gateway_subnet: options.gateway_subnet,
            cgroup_parent: options.cgroup_parent.clone(),
            docker_socket: options.docker_socket.as_deref().map(absolute).transpose()?,
        };
        let (path, text) = (path(&options.data), serde_json::to_vec_pretty(&noted)?);
        host::replace(&path, text, 0o600)
            .with_context(|| format!("cannot write {}", path.display()))
    }

    /// What the daemon that has this data noted last; `None` where there never was one.
    pub(crate) fn read(data: &Path) -> Result<Option<Self>> {
        let path = path(data);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", path.display()));
            }
        };
        let damaged = || {
            let path = path.display();
            format!("{path} is damaged: remove it, and give the options that the daemon had")
        };
        serde_json::from_slice(&text).map(Some).with_context(damaged)
    }
}

fn path(data: &Path) -> PathBuf {
    data.join("traces.json")
}

fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).with_context(|| format!("cannot use the path {}", path.display()))
}
