//! The way in, and what all parts of the engine share.

use crate::blocking::{blocking, cannot};
use crate::config::Config;
use crate::container::Container;
use crate::events::{EventStream, Events};
use crate::exec::Exec;
use crate::fetch::Fetches;
use crate::info::{ContainerInfo, ContainerState, Status};
use crate::logs::{self, LogOptions, LogStream};
use crate::mounting::Mounter;
use crate::path_checks::PathChecks;
use crate::registry::Registry;
use crate::runtime::{Exit, Runtime, Size};
use crate::spec::Machine;
use crate::stand_in::ReaderLock;
use crate::task_images::TaskImages;
use crate::volumes::{Plugins, Volume, VolumeMounts, VolumeOrder, Volumes};
use crate::{clock, connections, drivers, files, life, stand_in, task_images};
use dataplane::Dataplane;
use scope::Scope;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Semaphore, SemaphorePermit, mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use types::{Fault, FaultKind, Labels, Timestamp};

/// Lines that wait for a reader of a log. Each may be long.
const LINES: usize = 32;
/// Containers that the runtime makes or starts at a time: more only take from each other.
const AT_ONCE: usize = 4;

/// The engine of this node. Clones are the same engine.
#[derive(Clone)]
pub struct Engine {
    pub(crate) inner: Arc<Inner>,
}

/// What all clones share.
pub(crate) struct Inner {
    pub(crate) config: Config,
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) dataplane: Dataplane,
    pub(crate) machine: Machine,
    pub(crate) events: Events,
    pub(crate) volumes: Volumes,
    pub(crate) volume_mounts: VolumeMounts,
    pub(crate) plugins: Plugins,
    /// The names of the drivers of volumes that this node has beside its own.
    pub(crate) volume_drivers: watch::Sender<Vec<String>>,
    pub(crate) path_checks: PathChecks,
    start_permits: Semaphore,
    registry: Mutex<Registry>,
    pub(crate) execs: Mutex<BTreeMap<String, Arc<Exec>>>,
    pub(crate) fetches: Fetches,
    pub(crate) task_images: Mutex<TaskImages>,
    /// What the file of them says; whoever writes it holds this.
    pub(crate) written_task_images: tokio::sync::Mutex<TaskImages>,
    /// The right to read the FIFOs, until the loop ends.
    pub(crate) reader_lock: Mutex<Option<ReaderLock>>,
    /// Ends the watch over processes, which goes on while the runtime tells nothing.
    pub(crate) lost: Mutex<Option<CancellationToken>>,
    /// Everything that runs beside the loop: pumps, health checks, ends, clients' requests.
    pub(crate) tracker: TaskTracker,
    pub(crate) token: CancellationToken,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("config", &self.inner.config).finish_non_exhaustive()
    }
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

/// Starts the engine: takes over what runs, and removes what nobody knows.
pub async fn start(
    config: Config,
    runtime: Arc<dyn Runtime>,
    dataplane: Dataplane,
    scope: &mut Scope,
) -> Result<Engine, Fault> {
    let (run, data, init) = (config.run.clone(), config.data.clone(), config.init);
    let folder = data.clone();
    let images = blocking(move || Ok(task_images::read(&folder))).await?;
    let mut machine = Machine::observe(config.apparmor.clone());
    machine.network.clone_from(&config.network);
    machine.init = blocking(move || files::init(&data, init)).await?;
    let events = Events::new();
    let plugins = Plugins::new(config.plugin_folders.clone());
    let inner = Inner {
        reader_lock: Mutex::new(blocking(move || lock_as_reader(&run)).await?),
        volumes: Volumes::new(config.data.join("volumes"), plugins.clone(), events.clone()),
        volume_mounts: VolumeMounts::new(
            Mounter::new(config.mount_helper.clone()),
            plugins.clone(),
        ),
        volume_drivers: watch::Sender::new(drivers::names(&plugins).await),
        plugins,
        path_checks: PathChecks::default(),
        start_permits: Semaphore::new(AT_ONCE),
        machine,
        config,
        runtime,
        dataplane,
        events,
        registry: Mutex::default(),
        execs: Mutex::default(),
        fetches: Fetches::default(),
        task_images: Mutex::new(images.clone()),
        written_task_images: tokio::sync::Mutex::new(images),
        lost: Mutex::default(),
        tracker: TaskTracker::new(),
        token: scope.token(),
    };
    let engine = Engine { inner: Arc::new(inner) };
    // Before anything is read: no end of a container is missed.
    let happenings = engine.inner.runtime.happenings();
    engine.take_over().await?;
    scope.spawn("engine", life::run(engine.clone(), happenings));
    scope.spawn("images", task_images::run(engine.clone()));
    scope.spawn("volume drivers", drivers::run(engine.clone()));
    Ok(engine)
}

/// From now on, this engine reads what containers write.
fn lock_as_reader(run: &Path) -> Result<Option<ReaderLock>, Fault> {
    std::fs::create_dir_all(run).map_err(cannot("make the engine's run directory"))?;
    let lock = stand_in::turn(run).map_err(cannot("lock the engine's run directory"))?;
    if lock.is_none() {
        tracing::warn!("somebody else reads the output of containers; reading all the same");
    }
    Ok(lock)
}

impl Engine {
    /// Draws an id for a container.
    pub fn draw_id() -> String {
        clock::draw_id()
    }

    /// The registry's changes are single insertions and removals.
    pub(crate) fn registry(&self) -> MutexGuard<'_, Registry> {
        self.inner.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All containers, as a list of their own: the registry is free while it is gone through.
    pub(crate) fn containers(&self) -> Vec<Arc<Container>> {
        self.registry().all()
    }

    pub(crate) fn find(&self, name: &str) -> Result<Arc<Container>, Fault> {
        self.registry().find(name)
    }

    /// Waits for the permit to have the runtime make or start something. Held for that only: who has
    /// one waits for nothing else. The semaphore is never closed.
    pub(crate) async fn start_permit(&self) -> Option<SemaphorePermit<'_>> {
        self.inner.start_permits.acquire().await.ok()
    }

    /// Does something to its end, also when whoever asked for it goes away.
    pub(crate) async fn complete<T, F>(&self, work: F) -> Result<T, Fault>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Fault>> + Send + 'static,
    {
        let ended = self.inner.tracker.spawn(work).await;
        ended.map_err(|panic| Fault::internal(format!("the engine failed: {panic}")))?
    }

    /// The container as it is. `name` is an id, the beginning of one, or a name, here and in all
    /// other calls; `No such container: …` where there is none.
    #[expect(clippy::unused_async, reason = "like the other calls; it may wait one day")]
    pub async fn inspect(&self, name: &str) -> Result<ContainerInfo, Fault> {
        let mut info = self.find(name)?.info();
        let profile = crate::spec::apparmor(&info.config, &self.inner.machine);
        info.apparmor = profile.unwrap_or_default();
        info.execs = self.running_execs(&info.id);
        Ok(info)
    }

    /// The containers that run, or all; the newest first.
    #[expect(clippy::unused_async, reason = "like the other calls; it may wait one day")]
    pub async fn list(&self, all: bool) -> Vec<ContainerInfo> {
        let containers = self.containers();
        let shown = containers.iter().filter(|one| all || one.status() == Status::Running);
        let mut list: Vec<ContainerInfo> = shown.map(|one| one.info()).collect();
        list.sort_by_key(|info| std::cmp::Reverse(info.created));
        list
    }

    /// How the container is (with its health), and every change. Closed when it is removed.
    pub fn watch(&self, name: &str) -> Result<watch::Receiver<ContainerState>, Fault> {
        Ok(self.find(name)?.state.subscribe())
    }

    /// Waits until the container has ended or is removed. All its output is in the log then.
    pub async fn wait(&self, name: &str, until: WaitFor) -> Result<Exit, Fault> {
        let container = self.find(name)?;
        let mut state = container.state.subscribe();
        let (starts, runs) = {
            let now = state.borrow();
            (now.starts, now.status == Status::Running)
        };
        let ended = async {
            let reached = state.wait_for(|state| match until {
                WaitFor::NotRunning => state.status != Status::Running,
                WaitFor::NextExit => {
                    state.status == Status::Exited && (runs || starts < state.starts)
                }
                WaitFor::Removed => false,
            });
            if reached.await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = ended => {}
            () = container.gone.cancelled() => {}
        }
        let state = container.state.borrow();
        Ok(Exit { code: state.exit_code, at: state.finished_at })
    }

    /// Lines of the log.
    pub fn logs(&self, name: &str, options: LogOptions) -> Result<LogStream, Fault> {
        let container = self.find(name)?;
        let Some(log) = &container.log else {
            let message = "configured logging driver does not support reading";
            return Err(Fault::new(FaultKind::NotImplemented, message.to_owned()));
        };
        let (sink, lines) = mpsc::channel(LINES);
        let reading = logs::read(Arc::clone(log), options, sink);
        let token = self.inner.token.clone();
        self.inner.tracker.spawn(async move { token.run_until_cancelled(reading).await });
        Ok(ReceiverStream::new(lines))
    }

    /// The log driver of containers that name none.
    pub fn log_driver(&self) -> &str {
        &self.inner.config.log.driver
    }

    /// What goes with each line of the log: labels, variables and a tag that its options name.
    pub fn log_attributes(&self, name: &str) -> Result<Labels, Fault> {
        let container = self.find(name)?;
        Ok(container.log.as_ref().map(|log| log.attributes().clone()).unwrap_or_default())
    }

    /// Sets the size of the container's terminal.
    pub async fn resize(&self, name: &str, size: Size) -> Result<(), Fault> {
        let container = self.running(name)?;
        self.inner.runtime.resize(container.id().to_owned(), None, size).await?;
        let size = [("width", size.width.to_string()), ("height", size.height.to_string())];
        container.tell(&self.inner.events, "resize", &size);
        Ok(())
    }

    /// Says whether a client from elsewhere is connected to a port that the container's image
    /// exposes or that is `published` (the container's own TCP ports); where there are none of
    /// these, to any that it listens on.
    pub async fn has_client(&self, name: &str, published: &[u16]) -> Result<bool, Fault> {
        let container = self.find(name)?;
        let pid = container.state.borrow().pid;
        if pid == 0 || container.live().netns.is_none() {
            return Ok(false);
        }
        let ports = container.image.exposed_tcp().chain(published.iter().copied()).collect();
        blocking(move || Ok(connections::has_client(pid, &ports))).await
    }

    /// The container, or Docker's words where it does not run.
    pub(crate) fn running(&self, name: &str) -> Result<Arc<Container>, Fault> {
        let container = self.find(name)?;
        if container.status() == Status::Running {
            return Ok(container);
        }
        Err(Fault::conflict(format!("container {} is not running", container.id())))
    }

    /// What happens from now on, after what is remembered since `since`; up to `until`, where there
    /// is one. The last 1024 events are remembered; a reader that falls behind further is told so.
    pub fn events(&self, since: Option<Timestamp>, until: Option<Timestamp>) -> EventStream {
        self.inner.events.listen(since, until)
    }

    /// After this moment no event is missing among those that are remembered.
    pub fn events_whole_after(&self) -> Timestamp {
        self.inner.events.whole_after()
    }

    /// Makes a volume, or finds the one of this name.
    pub async fn create_volume(&self, order: VolumeOrder) -> Result<Volume, Fault> {
        let volumes = self.inner.volumes.clone();
        blocking(move || volumes.make(order)).await
    }

    /// Removes a volume that no container uses; with `force` also one that its plugin does not remove,
    /// or that has no plugin any more.
    pub async fn remove_volume(&self, name: &str, force: bool) -> Result<(), Fault> {
        let (engine, name) = (self.clone(), name.to_owned());
        blocking(move || {
            engine.inner.volumes.remove(&name, force, |volume| engine.user_of(volume, ""))
        })
        .await
    }

    /// The same for whoever has this id, which does not count any more. Waits for the disk.
    pub(crate) fn remove_unused(&self, volume: &str, but: &str) -> Result<(), Fault> {
        self.inner.volumes.remove(volume, false, |volume| self.user_of(volume, but))
    }

    /// The id of a container that has this volume.
    fn user_of(&self, volume: &Volume, but: &str) -> Option<String> {
        let uses = |container: &Container| {
            let mut points = container.fixed.mounts.iter();
            container.id() != but && points.any(|point| point.is_of(&volume.name))
        };
        let containers = self.containers();
        containers.iter().find(|container| uses(container)).map(|user| user.id().to_owned())
    }
}
