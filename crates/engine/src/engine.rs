//! The way in.

use crate::config::{Config, ContainerConfig};
use crate::events::EventStream;
use crate::exec::{AttachOptions, Attached, ExecConfig, ExecInfo};
use crate::info::{ContainerInfo, ContainerState};
use crate::logs::{LogOptions, LogStream};
use crate::runtime::{Archive, Credentials, Exit, Image, Progress, Runtime, Size, Usage};
use crate::volumes::Volume;
use dataplane::Dataplane;
use scope::Scope;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_stream::wrappers::ReceiverStream;
use types::{Fault, Labels, Timestamp};

/// The engine of this node. Clones are the same engine.
#[derive(Clone)]
pub struct Engine {
    runtime: Arc<dyn Runtime>,
}

/// Progress of a pull as it comes. Ends after the image is there; a fault is the last item.
pub type PullStream = ReceiverStream<Result<Progress, Fault>>;

/// A container that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Created {
    pub id: String,
    pub warnings: Vec<String>,
}

/// What the removal of an image did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Removed {
    /// A name as users write it.
    Untagged(String),
    /// An image's id.
    Deleted(String),
}

/// What to wait for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WaitFor {
    /// That it does not run; at once where that is so.
    #[default]
    NotRunning,
    /// The next end.
    NextExit,
    /// That it is removed.
    Removed,
}

fn later<T>(feature: &str) -> Result<T, Fault> {
    Err(Fault::not_implemented(feature))
}

/// Starts the engine: takes over what runs, and removes what nobody knows.
pub async fn start(
    config: Config,
    runtime: Arc<dyn Runtime>,
    dataplane: Dataplane,
    scope: &mut Scope,
) -> Result<Engine, Fault> {
    let _ = (config, dataplane, scope);
    Ok(Engine { runtime })
}

#[allow(clippy::unused_async, unused_variables)]
impl Engine {
    /// Draws an id for a container.
    pub fn draw_id() -> String {
        String::new()
    }

    // --- images -----------------------------------------------------------------------------

    /// Fetches an image (`nginx`, `registry/a:b`, `a@sha256:…`), whether or not it is here.
    pub fn pull(&self, name: &str, credentials: Option<Credentials>) -> Result<PullStream, Fault> {
        later("pull")
    }

    /// The image, fetched only if it is not here.
    pub async fn ensure_image(
        &self,
        name: &str,
        credentials: Option<Credentials>,
    ) -> Result<Image, Fault> {
        later("pull")
    }

    /// Takes the images of a `docker save` archive or OCI layout over.
    pub async fn load(&self, archive: Archive) -> Result<Vec<Image>, Fault> {
        later("load")
    }

    /// Makes an image from a tar of a root file system (`docker import`). `config` is the OCI
    /// configuration's `config` object.
    pub async fn import(
        &self,
        rootfs: Archive,
        name: Option<&str>,
        config: serde_json::Value,
    ) -> Result<Image, Fault> {
        later("import")
    }

    /// All images.
    pub async fn images(&self) -> Result<Vec<Image>, Fault> {
        later("images")
    }

    /// The image of this name, id or beginning of an id; `No such image: …` otherwise.
    pub async fn image(&self, name: &str) -> Result<Image, Fault> {
        later("image")
    }

    /// Removes a name or, by id, an image. Without `force` not while a container uses it.
    pub async fn remove_image(&self, name: &str, force: bool) -> Result<Vec<Removed>, Fault> {
        later("remove_image")
    }

    /// Gives an image a further name.
    pub async fn tag(&self, image: &str, name: &str) -> Result<(), Fault> {
        later("tag")
    }

    // --- containers -------------------------------------------------------------------------
    // `name` is an id, the beginning of one, or a name. `No such container: …` where there is none.

    /// Makes a container; its image must be here (`No such image: …`).
    pub async fn create(&self, config: ContainerConfig) -> Result<Created, Fault> {
        later("create")
    }

    /// Starts a container. False where it runs already.
    pub async fn start(&self, name: &str) -> Result<bool, Fault> {
        later("start")
    }

    /// Ends a container: its stop signal (or `signal`), SIGKILL after the grace period. Returns
    /// when it has ended; false where it did not run.
    pub async fn stop(
        &self,
        name: &str,
        signal: Option<&str>,
        grace: Option<Duration>,
    ) -> Result<bool, Fault> {
        later("stop")
    }

    /// Sends a signal (`SIGHUP`, `HUP`, `1`; empty: SIGKILL) and does not wait.
    pub async fn kill(&self, name: &str, signal: &str) -> Result<(), Fault> {
        later("kill")
    }

    /// Waits until the container has ended or is removed. All its output is in the log then.
    pub async fn wait(&self, name: &str, until: WaitFor) -> Result<Exit, Fault> {
        later("wait")
    }

    /// Removes a container; one that runs only with `force`. Its anonymous volumes go where
    /// `volumes`.
    pub async fn remove(&self, name: &str, force: bool, volumes: bool) -> Result<(), Fault> {
        later("remove")
    }

    /// The container as it is.
    pub async fn inspect(&self, name: &str) -> Result<ContainerInfo, Fault> {
        later("inspect")
    }

    /// The containers that run, or all; the newest first.
    pub async fn list(&self, all: bool) -> Vec<ContainerInfo> {
        Vec::new()
    }

    /// How the container is (with its health), and every change. Closed when it is removed.
    pub fn watch(&self, name: &str) -> Result<watch::Receiver<ContainerState>, Fault> {
        later("watch")
    }

    /// Lines of the log.
    pub fn logs(&self, name: &str, options: LogOptions) -> Result<LogStream, Fault> {
        later("logs")
    }

    /// Connects to the container's standard streams; it may start later.
    pub async fn attach(&self, name: &str, options: AttachOptions) -> Result<Attached, Fault> {
        later("attach")
    }

    /// Sets the size of the container's terminal.
    pub async fn resize(&self, name: &str, size: Size) -> Result<(), Fault> {
        later("resize")
    }

    /// Processes in the container: titles and one row for each, as `ps -ef` prints them.
    pub async fn top(&self, name: &str) -> Result<(Vec<String>, Vec<Vec<String>>), Fault> {
        later("top")
    }

    /// What the container uses.
    pub async fn usage(&self, name: &str) -> Result<Usage, Fault> {
        later("usage")
    }

    /// Connections that clients have open to ports the container listens on.
    pub async fn open_connections(&self, name: &str) -> Result<usize, Fault> {
        later("open_connections")
    }

    // --- exec -------------------------------------------------------------------------------

    /// Notes a further process for a running container. Returns its id.
    pub async fn exec_create(&self, name: &str, config: ExecConfig) -> Result<String, Fault> {
        later("exec_create")
    }

    /// Starts it, with streams as its configuration asks; with `detach` there are none.
    pub async fn exec_start(&self, exec: &str, detach: bool) -> Result<Attached, Fault> {
        later("exec_start")
    }

    pub fn exec_inspect(&self, exec: &str) -> Result<ExecInfo, Fault> {
        later("exec_inspect")
    }

    pub async fn exec_resize(&self, exec: &str, size: Size) -> Result<(), Fault> {
        later("exec_resize")
    }

    // --- events, volumes --------------------------------------------------------------------

    /// What happens from now on, after what is remembered since `since`. The last 256 events are
    /// remembered; a reader that falls behind further misses some.
    pub fn events(&self, since: Option<Timestamp>) -> EventStream {
        Box::pin(futures_util::stream::pending())
    }

    pub async fn volumes(&self) -> Result<Vec<Volume>, Fault> {
        later("volumes")
    }

    /// Makes a volume, or finds the one of this name. An empty name is drawn.
    pub async fn create_volume(&self, name: &str, labels: Labels) -> Result<Volume, Fault> {
        later("create_volume")
    }

    pub async fn volume(&self, name: &str) -> Result<Volume, Fault> {
        later("volume")
    }

    /// Removes a volume that no container uses.
    pub async fn remove_volume(&self, name: &str) -> Result<(), Fault> {
        later("remove_volume")
    }
}
