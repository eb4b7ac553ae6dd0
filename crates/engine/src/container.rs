//! A container as the engine holds it.

use crate::blocking::{blocking, cannot};
use crate::events::{EventKind, Events};
use crate::health::Check;
use crate::info::{ContainerInfo, ContainerState, Status};
use crate::logs::{LogFile, LoggedContainer, Options, Remote};
use crate::record::{self, Record};
use crate::runtime::Stdio;
use crate::signals;
use crate::spec::{self, ImageConfig, Merged};
use crate::taps::Tap;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::net::unix::pipe::Sender;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use types::{Fault, MountKind};

/// Some hundred events are remembered, each with its container's labels; what is longer is cut.
const EVENT_LABELS_MAX: usize = 64 << 10;
/// A command is part of what is told of a further process.
const EVENT_ACTION_MAX: usize = 4 << 10;

/// One container: what does not change, how it is, and what goes on while it runs.
#[derive(Debug)]
pub(crate) struct Container {
    /// As it was made. Its state is stale: see `state`.
    pub(crate) fixed: Record,
    pub(crate) image: ImageConfig,
    pub(crate) check: Option<Check>,
    /// Its record, its log and the files that are mounted into it.
    pub(crate) folder: PathBuf,
    /// Its FIFOs.
    pub(crate) run: PathBuf,
    pub(crate) state: watch::Sender<ContainerState>,
    /// One start, end or removal at a time.
    pub(crate) operation: tokio::sync::Mutex<()>,
    /// So many are restarting it: its end is not the last.
    pub(crate) restarting: AtomicUsize,
    saving: tokio::sync::Mutex<()>,
    /// `None` where nothing is kept here, as with the log driver `none`.
    pub(crate) log: Option<Arc<LogFile>>,
    /// Where its lines are sent besides.
    pub(crate) remote: Option<Arc<Remote>>,
    /// It has been removed.
    pub(crate) gone: CancellationToken,
    live: Mutex<Live>,
}

/// What there is only while a container runs or is about to.
#[derive(Debug, Default)]
pub(crate) struct Live {
    pub(crate) address: Option<Ipv4Addr>,
    pub(crate) netns: Option<PathBuf>,
    pub(crate) stdin: Option<Arc<Sender>>,
    /// Clients that the pump has not taken over yet.
    pub(crate) taps: Vec<Tap>,
    pub(crate) pump: Option<Pump>,
    pub(crate) health: Option<CancellationToken>,
}

/// What carries output to the log and to clients.
#[derive(Debug)]
pub(crate) struct Pump {
    /// The container has ended: no client is waited for any more.
    pub(crate) ended: CancellationToken,
    /// And the rest of its output is in the FIFOs.
    pub(crate) finish: CancellationToken,
    pub(crate) done: JoinHandle<()>,
}

impl Container {
    /// `journal`: the socket of the machine's journal.
    pub(crate) fn new(
        record: Record,
        (folder, run): (PathBuf, PathBuf),
        journal: &Path,
    ) -> Result<Self, Fault> {
        let image = ImageConfig::of(&record.image_config);
        let check = Check::resolve(record.config.spec.health.as_ref(), image.health().as_ref());
        let (log, remote) = logs(&record, &image, (&folder, journal))?;
        Ok(Self {
            image,
            check,
            folder,
            run,
            state: watch::channel(record.state.clone()).0,
            operation: tokio::sync::Mutex::new(()),
            restarting: AtomicUsize::new(0),
            saving: tokio::sync::Mutex::new(()),
            log,
            remote,
            gone: CancellationToken::new(),
            live: Mutex::new(Live::default()),
            fixed: record,
        })
    }

    /// The ids of the images it needs: its own, and those that are mounted.
    pub(crate) fn images(&self) -> impl Iterator<Item = &str> {
        let mounted = self.fixed.mounts.iter().map(|point| point.image.as_str());
        [self.fixed.image.as_str()].into_iter().chain(mounted.filter(|id| !id.is_empty()))
    }

    pub(crate) fn id(&self) -> &str {
        &self.fixed.id
    }

    pub(crate) fn status(&self) -> Status {
        self.state.borrow().status
    }

    /// Says whether somebody ends it in order to start it anew.
    pub(crate) fn restarts(&self) -> bool {
        self.restarting.load(Ordering::SeqCst) > 0
    }

    /// What is live is changed by single assignments; a panic leaves nothing half done.
    pub(crate) fn live(&self) -> MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes the record down as it is now.
    pub(crate) async fn save(&self) -> Result<(), Fault> {
        // In turn, so that the newest state is what stays.
        let _turn = self.saving.lock().await;
        let state = self.state.borrow().clone();
        let (record, folder) = (Record { state, ..self.fixed.clone() }, self.folder.clone());
        blocking(move || {
            record::write(&folder, &record).map_err(cannot("write a container's record"))
        })
        .await
    }

    /// Changes the state and writes it down. What cannot be written is known until a restart.
    pub(crate) async fn update(&self, change: impl FnOnce(&mut ContainerState)) {
        self.state.send_modify(change);
        if let Err(fault) = self.save().await {
            tracing::error!(id = self.id(), %fault, "a container's record is stale");
        }
    }

    pub(crate) fn hostname(&self) -> String {
        let own = &self.fixed.config.spec.hostname;
        if own.is_empty() { self.id().chars().take(12).collect() } else { own.clone() }
    }

    /// The FIFOs of its first process.
    pub(crate) fn stdio(&self) -> Stdio {
        let spec = &self.fixed.config.spec;
        Stdio {
            stdin: spec.open_stdin.then(|| self.run.join("stdin")),
            stdout: Some(self.run.join("stdout")),
            stderr: (!spec.tty).then(|| self.run.join("stderr")),
            terminal: spec.tty,
        }
    }

    /// The signal that asks it to end.
    pub(crate) fn stop_signal(&self) -> i32 {
        let wanted = [&self.fixed.config.spec.stop_signal, &self.image.stop_signal];
        let set = wanted.into_iter().find(|signal| !signal.is_empty());
        set.and_then(|signal| signals::parse(signal).ok()).unwrap_or(signals::TERM)
    }

    /// Tells an event of this container.
    pub(crate) fn tell(&self, events: &Events, action: &str, further: &[(&str, String)]) {
        let own = &self.fixed.config.spec.labels;
        let mut attributes: BTreeMap<String, String> =
            spec::labels_within(own, &self.image.labels, EVENT_LABELS_MAX);
        attributes.insert("image".to_owned(), self.fixed.config.spec.image.clone());
        attributes.insert("name".to_owned(), self.fixed.name.clone());
        for (name, value) in further {
            attributes.insert((*name).to_owned(), value.clone());
        }
        let action = &action[..action.floor_char_boundary(EVENT_ACTION_MAX)];
        events.tell(EventKind::Container, action, self.id(), attributes);
    }

    /// What can be seen of it.
    pub(crate) fn info(&self) -> ContainerInfo {
        let spec = &self.fixed.config.spec;
        let live = self.live();
        let state = self.state.borrow().clone();
        let mut mounts = self.fixed.mounts.clone();
        for point in mounts.iter_mut().filter(|point| point.mount.kind == MountKind::Volume) {
            if let Some(path) = state.volumes.get(&point.mount.source) {
                point.source.clone_from(path);
            }
        }
        ContainerInfo {
            id: self.fixed.id.clone(),
            name: self.fixed.name.clone(),
            created: self.fixed.created,
            image: self.fixed.image.clone(),
            config: self.fixed.config.clone(),
            args: spec::arguments(spec, &self.image).unwrap_or_default(),
            merged: Merged::new(&self.fixed.config, &self.image),
            hostname: self.hostname(),
            mounts,
            address: live.address,
            netns: live.netns.clone(),
            log_path: self.log.as_ref().map(|log| log.path().to_owned()).unwrap_or_default(),
            folder: if 0 < state.starts { self.folder.clone() } else { PathBuf::new() },
            apparmor: String::new(),
            execs: Vec::new(),
            state,
        }
    }
}

/// Files here, and where lines are sent elsewhere.
type Logs = (Option<Arc<LogFile>>, Option<Arc<Remote>>);

/// Where a container's output goes.
fn logs(
    record: &Record,
    image: &ImageConfig,
    (folder, journal): (&Path, &Path),
) -> Result<Logs, Fault> {
    let options = Options::parse(&record.config.log)?;
    let spec = &record.config.spec;
    let about = LoggedContainer {
        id: &record.id,
        name: &record.name,
        image: &spec.image,
        image_id: &record.image,
        created: record.created,
        command: &spec::arguments(spec, image).unwrap_or_default(),
        labels: Some(&spec::labels(&spec.labels, &image.labels)),
        env: &spec::merge(&image.env, &spec.env),
    };
    let attributes = options.selection.attributes(&about)?;
    let file = options.limits.map(|limits| {
        let path = folder.join(format!("{}-json.log", record.id));
        let closed = record.state.status == Status::Exited;
        Arc::new(LogFile::new(path, limits, closed, attributes))
    });
    let remote = Remote::new(&options, options.selection.source(&about)?, (folder, journal));
    Ok((file, remote.map(Arc::new)))
}
