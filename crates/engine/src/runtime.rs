//! The port to what holds images and runs containers.
//!
//! The engine decides everything that Docker's users see: names, what a container's processes may
//! do, logs, health, events. The runtime only keeps images and snapshots, and runs processes from
//! an OCI specification that it does not look into.
//!
//! What every implementation promises:
//! - Containers are known by the engine's ids. Only this node's containers are seen (an own
//!   containerd namespace).
//! - Every call has a time limit of its own and may be repeated. Removing what is not there is
//!   fine; any other call on it is [`types::FaultKind::NotFound`].
//! - When the daemon or the runtime's own daemon restarts, containers run on. A fault of kind
//!   [`types::FaultKind::Unavailable`] means that the same call may succeed later.
//! - Image names are complete, as [`crate::Reference`] writes them:
//!   `docker.io/library/nginx:latest` or `registry:5000/a/b@sha256:…`.

use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use tokio::io::AsyncRead;
use tokio::sync::mpsc;
use types::{Fault, Platform, Timestamp};

/// What a runtime's call gives.
pub type RuntimeFuture<'a, T> = BoxFuture<'a, Result<T, Fault>>;

/// An archive that is being sent.
pub type Archive = Pin<Box<dyn AsyncRead + Send>>;

/// Images, containers and processes of this machine.
pub trait Runtime: Send + Sync + 'static {
    /// Takes the images of an archive over and unpacks them: `docker save` (old and new form) or
    /// an OCI layout, plain or with gzip. One entry for each image found, with the complete names
    /// it got from the archive (perhaps none). A name that was another image's moves.
    fn load(&self, archive: Archive) -> RuntimeFuture<'_, Vec<Image>>;

    /// Makes an image of one layer from a tar of a root file system, plain or with gzip. The
    /// runtime completes `config` (architecture, os, rootfs.diff_ids).
    fn import(
        &self,
        rootfs: Archive,
        name: Option<String>,
        config: Value,
    ) -> RuntimeFuture<'_, Image>;

    /// Fetches the image for this machine from its registry, unpacks it and names it. Sends
    /// progress where there is room (`try_send`); it never waits for a reader.
    fn pull(
        &self,
        name: String,
        credentials: Option<Credentials>,
        progress: mpsc::Sender<Progress>,
    ) -> RuntimeFuture<'_, Image>;

    /// Asks the registry what a name stands for, without fetching it. Answers within seconds.
    fn resolve(
        &self,
        name: String,
        credentials: Option<Credentials>,
    ) -> RuntimeFuture<'_, Distribution>;

    /// All images, one entry for each id.
    fn images(&self) -> RuntimeFuture<'_, Vec<Image>>;

    /// The image with this complete name or this whole id (`sha256:…`), if it is here.
    fn image(&self, name: String) -> RuntimeFuture<'_, Option<Image>>;

    /// Gives the image with this complete name or id a further complete name; one that was another
    /// image's moves.
    fn tag(&self, image: String, name: String) -> RuntimeFuture<'_, ()>;

    /// Removes a complete name, or, with an id, an image that has no name. With its last name, an
    /// image and its layers go.
    fn untag(&self, name: String) -> RuntimeFuture<'_, ()>;

    /// Makes the writable layer of a container on an image (complete name or id), and keeps the
    /// image from being collected as long as it is there. It is fine if it is there already.
    fn prepare(&self, id: String, image: String) -> RuntimeFuture<'_, ()>;

    /// Mounts a container's file system at an empty directory, to look up users and to read what
    /// volumes are filled with before it starts: nothing is written to it. Never done while it runs.
    fn mount(&self, id: String, at: PathBuf) -> RuntimeFuture<'_, ()>;

    /// Undoes [`Self::mount`]. It is fine if nothing is mounted there.
    fn unmount(&self, at: PathBuf) -> RuntimeFuture<'_, ()>;

    /// Mounts what is in an image (its id) at an empty directory, for a container to read: its mount
    /// of this number. The image's files stay until [`Self::delete`] of the container.
    fn mount_image(
        &self,
        id: String,
        number: usize,
        image: String,
        at: PathBuf,
    ) -> RuntimeFuture<'_, ()>;

    /// Makes a process from an OCI runtime specification and starts it, in the file system that
    /// [`Self::prepare`] made. The runtime writes `root.path` of the specification. A task of this
    /// id that has ended is removed first. When this fails, no process is left. Returns the
    /// process id on the host.
    fn start(&self, id: String, spec: Value, stdio: Stdio) -> RuntimeFuture<'_, u32>;

    /// Sends a signal to the container's first process, or to all where `all`. It is fine if it
    /// has ended.
    fn signal(&self, id: String, signal: i32, all: bool) -> RuntimeFuture<'_, ()>;

    /// Waits until all that the ended container has written is in its FIFOs, then forgets its task
    /// (processes, cgroup); the file system stays. To be called while the FIFOs are being read.
    /// Returns how it ended, `None` where there is no task.
    fn reap(&self, id: String) -> RuntimeFuture<'_, Option<Exit>>;

    /// Kills and removes the container whole: processes, task, record and file system. It is fine
    /// if any of it has gone.
    fn delete(&self, id: String) -> RuntimeFuture<'_, ()>;

    /// How a container is; `None` where there is neither a task nor a file system of this id.
    fn state(&self, id: String) -> RuntimeFuture<'_, Option<State>>;

    /// Every container of this node that has a task or a file system.
    fn list(&self) -> RuntimeFuture<'_, BTreeMap<String, State>>;

    /// Ends of containers from now on. The stream never ends: the runtime subscribes again when
    /// the connection is lost, and then sends [`Happening::Resubscribed`] because events may be
    /// missing. The first item is `Resubscribed`, too: then the subscription stands.
    fn happenings(&self) -> BoxStream<'static, Happening>;

    /// Starts a further process (an OCI `process` object) in a running container. Returns its
    /// process id on the host.
    fn exec(
        &self,
        id: String,
        exec: String,
        process: Value,
        stdio: Stdio,
    ) -> RuntimeFuture<'_, u32>;

    /// Waits, without a time limit, until such a process has ended and all it has written is in
    /// its FIFOs, then forgets it. [`types::FaultKind::NotFound`] when the container has gone.
    fn exec_wait(&self, id: String, exec: String) -> RuntimeFuture<'_, Exit>;

    /// Sends a signal to such a process. It is fine if it has ended.
    fn exec_signal(&self, id: String, exec: String, signal: i32) -> RuntimeFuture<'_, ()>;

    /// Tells a container (or one of its further processes) that its standard input has ended. The
    /// engine has closed its own end of the FIFO before.
    fn close_stdin(&self, id: String, exec: Option<String>) -> RuntimeFuture<'_, ()>;

    /// Sets the size of a terminal.
    fn resize(&self, id: String, exec: Option<String>, size: Size) -> RuntimeFuture<'_, ()>;

    /// Process ids on the host of everything in the container.
    fn pids(&self, id: String) -> RuntimeFuture<'_, Vec<u32>>;

    /// What a running container uses.
    fn usage(&self, id: String) -> RuntimeFuture<'_, Usage>;

    /// Bytes that the container wrote over its image.
    fn written(&self, id: String) -> RuntimeFuture<'_, u64>;
}

/// An image that is here.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Image {
    /// The digest of its configuration, `sha256:…`: what Docker calls its id.
    pub id: String,
    /// Its complete names, with tags or digests.
    pub names: Vec<String>,
    /// The digest of its manifest for this machine.
    pub digest: String,
    /// Bytes of all layers as they are stored.
    pub size: u64,
    /// The OCI configuration as it stands, e.g. `{"architecture": …, "config": {"Cmd": …}}`.
    pub config: Value,
}

/// What a registry says of a name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Distribution {
    /// Of its manifest, or of its list of manifests for several machines.
    pub digest: String,
    pub media_type: String,
    /// Bytes of that document.
    pub size: u64,
    /// The machines that it is for, in the words of images, e.g. `linux` and `amd64`.
    pub platforms: Vec<Platform>,
}

/// The name and password for a registry.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    pub username: String,
    pub password: String,
    /// Used instead of name and password where not empty.
    pub identity_token: String,
}

// A password may not reach a log.
impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credentials(…)")
    }
}

impl From<types::PullCredentials> for Credentials {
    fn from(it: types::PullCredentials) -> Self {
        let types::PullCredentials { username, password, identity_token } = it;
        Self { username, password, identity_token }
    }
}

/// How far a pull is, in Docker's words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// The short digest of a layer; empty: the image as a whole.
    pub id: String,
    /// `Pulling fs layer`, `Downloading`, `Download complete`, `Pull complete`, …
    pub status: String,
    pub current: u64,
    /// 0: not known.
    pub total: u64,
}

/// FIFOs of a process. They are there and held open by the engine when a process starts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stdio {
    pub stdin: Option<PathBuf>,
    pub stdout: Option<PathBuf>,
    /// None with a terminal: all output comes by `stdout`.
    pub stderr: Option<PathBuf>,
    pub terminal: bool,
}

impl Stdio {
    /// The path as text, empty where there is none.
    pub fn text(path: Option<&Path>) -> String {
        path.map(|path| path.to_string_lossy().into_owned()).unwrap_or_default()
    }
}

/// How a container is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It has a file system and no task: never started, reaped, or the machine was restarted.
    Prepared,
    Running {
        pid: u32,
    },
    /// It has ended and was not reaped.
    Ended(Exit),
    /// The runtime has a task and cannot tell how it is, e.g. while whatever holds the process
    /// does not answer. It says nothing of the process; whoever must know asks again.
    Unknown,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// 128 + the signal where a signal ended it.
    pub code: i32,
    pub at: Timestamp,
}

/// What a runtime tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Happening {
    /// The connection is lost: nothing is told before [`Self::Resubscribed`].
    Lost,
    /// The subscription is new: what happened before it is not told.
    Resubscribed,
    /// A container's first process has ended. (Ends of further processes are not told.)
    Ended { id: String, exit: Exit },
    /// The kernel killed a process of this container for want of memory.
    OutOfMemory { id: String },
}

/// The size of a terminal in characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    pub width: u16,
    pub height: u16,
}

/// What a container uses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Nanoseconds of processor time so far; of these in programs and in the kernel.
    pub cpu_nanos: u64,
    pub user_nanos: u64,
    pub kernel_nanos: u64,
    /// With file cache, and how much of that is not in use.
    pub memory_bytes: u64,
    pub idle_cache_bytes: u64,
    /// 0: none.
    pub memory_limit: u64,
    pub pids: u64,
    /// 0: none.
    pub pids_limit: u64,
    pub devices: Vec<DeviceUse>,
    /// Nanoseconds of all the machine's processors so far, idle or not.
    pub machine_cpu_nanos: u64,
    /// By interface; empty where the container has no network of its own.
    pub networks: BTreeMap<String, Traffic>,
}

/// What went from and to a block device so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceUse {
    pub major: u64,
    pub minor: u64,
    pub read_bytes: u64,
    pub written_bytes: u64,
}

/// What went over an interface so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    pub received: Packets,
    pub sent: Packets,
}

/// One direction of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Packets {
    pub bytes: u64,
    pub packets: u64,
    pub errors: u64,
    pub dropped: u64,
}
