//! Carries out the tasks that managers assign to this node.
//!
//! It knows nothing of how tasks come about, of containerd or of kernels: containers are the
//! engine's, networks the data plane's. Start with [`worker`], which is pure and decides
//! everything, then `work`, its loop, [`session`], which decides what is said to a manager, and
//! `connection`, which carries it.
//!
//! Invariants: a task's state only rises; nothing is taken down before a manager has said, since
//! this process started, what this node should have; a task that serves is stopped only after it
//! has been withdrawn (or managers were away for too long).

mod clock;
mod connection;
mod container;
mod execute;
pub mod files;
mod journal;
mod leave;
pub mod leaving;
mod logs;
mod report;
pub mod session;
#[cfg(test)]
mod story;
mod work;
pub mod worker;

pub use clock::Now;
pub use connection::{Pauses, hear_of};

use ca::Identity;
use dataplane::Dataplane;
use engine::Engine;
use scope::Scope;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot, watch};
use types::{Fault, NodeDescription};

/// What an agent must be told.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where its journal is kept.
    pub data: PathBuf,
    pub identity: Arc<Identity>,
    /// Managers' RPC addresses, `host:port`. The newest list is in [`Status`].
    pub managers: Vec<String>,
    /// Where other nodes reach this one.
    pub address: IpAddr,
    /// Its VXLAN end point, where that is another address.
    pub data_path_address: Option<IpAddr>,
    pub description: NodeDescription,
}

/// How the agent gets on with managers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// A session is open.
    pub connected: bool,
    /// Managers' RPC addresses as last heard.
    pub managers: Vec<String>,
    /// Why there is no session.
    pub error: String,
    /// The overlays' UDP port, as last heard; 0: not yet.
    pub data_path_port: u16,
}

/// Why an agent cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Journal(#[from] ::journal::Error),
    #[error("cannot take over {path}, which a former release wrote; move it away to start anew")]
    Former {
        path: PathBuf,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("cannot use this node's certificate")]
    Identity(#[source] ca::Error),
}

/// A running agent. Clones are the same agent.
#[derive(Clone, Debug)]
pub struct Agent {
    status: watch::Receiver<Status>,
    commands: mpsc::Sender<work::Leave>,
}

impl Agent {
    /// Reads the journal, takes over what runs, and starts the loops in `scope`.
    pub async fn start(
        config: Config,
        engine: Engine,
        dataplane: Dataplane,
        scope: &mut Scope,
    ) -> Result<Self, Error> {
        work::start(Arc::new(config), engine, dataplane, scope).await
    }

    /// Tells how the agent gets on with managers, and of every change.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    /// Tells a manager that this node leaves, and takes its tasks down. The tasks are gone also
    /// where no manager could be told; then the fault says so.
    pub async fn leave(&self) -> Result<(), Fault> {
        let stopping = || Fault::unavailable("the agent of this node is stopping");
        let (done, gone) = oneshot::channel();
        self.commands.send(done).await.map_err(|_closed| stopping())?;
        gone.await.map_err(|_closed| stopping())?
    }
}
