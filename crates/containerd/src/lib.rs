//! Containers and images by containerd's gRPC API: the engine's port [`engine::Runtime`].
//!
//! It knows neither services nor networks, nor what a container's specification means: that is
//! written by the engine. What is here is containerd's side of it: content, snapshots, leases and
//! labels for its garbage collector, image archives, registries, tasks and their events; and a
//! containerd of our own where none is configured.
//!
//! Start with [`Containerd::connect`] and `runtime.rs`; [`OwnContainerd`] is the process.
//!
//! Invariants: whatever enters the content store is checked against its digest; a container is its
//! writable snapshot (it may lack a task, never the snapshot); every call has a time limit, and
//! waits a while for a containerd that restarts.

mod archive;
mod calls;
mod client;
mod containers;
mod content;
mod counted;
mod distribution;
mod error;
mod free_space;
mod happenings;
mod images;
mod lease;
mod leave;
mod load;
mod mounts;
mod oci;
mod patience;
mod process;
mod pull;
mod registry;
mod runtime;
mod spool;
mod starts;
mod tasks;
mod teardown;
mod unpack;
mod usage;

pub use error::Error;
pub use leave::leave;
pub use patience::Patience;
pub use process::{Directories, OwnContainerd};
pub use registry::Mirror;
pub use teardown::{stop, unmount_below};

use client::Client;
use starts::Starts;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use unpack::Snapshots;

/// Which containerd to use, and how.
#[derive(Clone, Debug, Default)]
pub struct Config {
    pub socket: PathBuf,
    /// Containers and images of other containerd namespaces are not seen.
    pub namespace: String,
    /// Where archives are put while they are being read.
    pub data: PathBuf,
    /// The OCI runtime, e.g. `crun`; containerd's own choice (runc) where not set.
    pub oci_runtime: Option<PathBuf>,
    /// Where the OCI runtime keeps its state; see [`Directories::runc_root`].
    pub runc_root: Option<PathBuf>,
    /// Asked before docker.io, in this order.
    pub mirrors: Vec<Mirror>,
    pub patience: Patience,
}

/// A containerd, seen in one of its namespaces. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Containerd {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: Config,
    client: Client,
    snapshots: Snapshots,
    starts: Starts,
}

impl Containerd {
    /// Connects to a containerd, whoever runs it, and makes the namespace there.
    pub async fn connect(config: Config) -> Result<Self, Error> {
        let client = Client::new(&config.socket, &config.namespace)?;
        client.make_namespace().await?;
        let client = client.find_store().await?;
        let name = client.choose_snapshotter().await?;
        let snapshots = Snapshots::new(client.clone(), name);
        let inner = Inner { config, client, snapshots, starts: Starts::default() };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The version of containerd, e.g. `1.6.20`.
    pub async fn version(&self) -> Result<String, Error> {
        self.client().ask_version().await
    }

    /// The snapshotter in use: Docker calls it the storage driver.
    pub fn snapshotter(&self) -> &str {
        &self.inner.snapshots.name
    }

    fn client(&self) -> &Client {
        &self.inner.client
    }

    fn snapshots(&self) -> &Snapshots {
        &self.inner.snapshots
    }

    fn spool(&self) -> &Path {
        &self.inner.config.data
    }

    fn mirrors(&self) -> &[Mirror] {
        &self.inner.config.mirrors
    }

    fn starts(&self) -> &Starts {
        &self.inner.starts
    }
}
