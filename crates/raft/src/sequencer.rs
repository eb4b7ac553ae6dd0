//! The one writer: puts everybody's changes in one order and into the log.

use crate::RaftError;
use crate::clock::{Clock, time_of_day};
use crate::consensus::{Consensus, Member, Record};
use crate::decide::{Decide, Decided, Decisions};
use crate::disk::{Disk, bytes};
use crate::free_space::{FreeSpace, RESERVE_BYTES, free_bytes};
use crate::log::Log;
use crate::machine::{Machine, encode_state};
use crate::network::Alone;
use crate::sizes::Sizes;
use openraft::alias::WatchReceiverOf;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{ClientWriteError, RaftError as Refusal};
use openraft::{Raft, RaftMetrics, SnapshotPolicy};
use scope::Scope;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use store::{Changes, Format, View};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use types::{ClusterSpec, Fault, Timestamp, Version};

/// Changes that may wait to be decided. Whoever comes when it is full waits for a place, for as long
/// as for the disk.
const QUEUE: usize = 1024;
/// Changes of the manager's own loops that may wait: each of them has one at a time.
const OWN_QUEUE: usize = 4;
/// Changes that become one entry of the log at most.
const BATCH: usize = 256;
/// How long callers wait for the disk.
const WRITE_LIMIT: Duration = Duration::from_secs(10);
/// How long a single manager may take to become its own leader and to read its log.
const START_LIMIT: Duration = Duration::from_mins(1);
/// Entries that stay in the log behind a snapshot, for managers that lag.
const KEPT_ENTRIES: u64 = 500;
/// The number of the first manager in the log's membership.
const FIRST: u64 = 1;

/// Where the log is.
#[derive(Clone, Debug)]
pub struct Config {
    /// Its directory; made if it is missing.
    pub directory: PathBuf,
    /// Changes are refused while the disk has less room than this and what a snapshot takes.
    pub reserve_bytes: u64,
    /// Says what the disk of a directory has free.
    pub free_bytes: fn(&Path) -> io::Result<u64>,
    /// Reads the time of day.
    pub wall: fn() -> Timestamp,
}

impl Config {
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
            reserve_bytes: RESERVE_BYTES,
            free_bytes,
            wall: time_of_day,
        }
    }
}

type Metrics = WatchReceiverOf<Consensus, RaftMetrics<Consensus>>;
type Node = Raft<Consensus, Machine>;
type Outcome = Result<Version, Fault>;

struct Request {
    decide: Decide,
    reply: oneshot::Sender<Outcome>,
}

/// A handle to the log: reads the newest view and writes changes.
#[derive(Clone)]
pub struct Sequencer {
    requests: mpsc::Sender<Request>,
    own: mpsc::Sender<Request>,
    views: watch::Receiver<View>,
    metrics: Metrics,
    clock: Arc<Clock>,
}

impl std::fmt::Debug for Sequencer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sequencer").field("version", &self.view().version()).finish_non_exhaustive()
    }
}

impl Sequencer {
    /// Lets `decide` say what shall change and changes it. Closures run one after the other, each
    /// sees what those before it changed, and the time of the record; what they change together
    /// becomes one entry of the log.
    ///
    /// Returns the version that holds the change, after it is on disk and in [`view`](Self::view).
    /// A fault of `decide`, or a change against the [`store::rules`], changes nothing and fails nobody
    /// else. `decide` must not block.
    pub async fn sequence<F>(&self, decide: F) -> Result<Version, Fault>
    where
        F: FnOnce(&View, Timestamp) -> Result<Changes, Fault> + Send + 'static,
    {
        let (reply, outcome) = oneshot::channel();
        let request = Request { decide: Box::new(decide), reply };
        self.requests.send_timeout(request, WRITE_LIMIT).await.map_err(
            |refused| match refused {
                mpsc::error::SendTimeoutError::Timeout(_) => {
                    Fault::unavailable("too many changes wait for this manager: try again")
                }
                mpsc::error::SendTimeoutError::Closed(_) => stopping(),
            },
        )?;
        outcome.await.map_err(|_gone| stopping())?
    }

    /// As [`sequence`](Self::sequence), for a loop of the manager itself, which has one change at a
    /// time: however many changes of others wait, this one is among the next that are decided. It is
    /// always decided while the log lives.
    pub async fn sequence_own<F>(&self, decide: F) -> Result<Version, Fault>
    where
        F: FnOnce(&View, Timestamp) -> Result<Changes, Fault> + Send + 'static,
    {
        let (reply, outcome) = oneshot::channel();
        let request = Request { decide: Box::new(decide), reply };
        self.own.send(request).await.map_err(|_closed| stopping())?;
        outcome.await.map_err(|_gone| stopping())?
    }

    /// The newest view.
    pub fn view(&self) -> View {
        self.views.borrow().clone()
    }

    /// The cluster's time, by which changes are decided. It never goes back; certificates, which
    /// other machines check by their own clocks, do not go by it.
    pub fn now(&self) -> Timestamp {
        self.clock.read().now
    }

    /// Since when the cluster's time has gone on evenly: since the log was opened, or the clock was
    /// set forward. What took long by the clock before that may have had no time at all.
    pub fn fair_from(&self) -> Timestamp {
        self.clock.read().fair_from
    }

    /// Follows the views. Steps in between may be skipped, the newest never is.
    pub fn watch(&self) -> watch::Receiver<View> {
        self.views.clone()
    }

    pub fn is_leader(&self) -> bool {
        self.metrics.borrow_watched().state.is_leader()
    }
}

fn stopping() -> Fault {
    Fault::unavailable("this manager is stopping; the change may not have been made")
}

/// Opens the log, makes this node its only voter if it is new, and waits until everything that was
/// written before is in the view. The loop in `scope` closes the log when the scope ends.
pub async fn open(config: Config, scope: &mut Scope) -> Result<Sequencer, RaftError> {
    let directory = config.directory.clone();
    let opened = tokio::task::spawn_blocking(move || Disk::open(&directory));
    let (disk, mut found) = opened.await.map_err(stopped)??;
    let disk = Arc::new(disk);
    let snapshot = found.snapshot.take();
    let snapshot_index =
        snapshot.as_ref().and_then(|it| it.meta.last_log_id).map_or(0, |id| id.index);
    let state_bytes = snapshot.as_ref().map_or(0, |it| it.bytes);
    let sizes = Arc::new(Sizes::new(state_bytes, found.uncovered));
    let last = scope.token().drop_guard();
    let (log, thread) =
        Log::start(&disk, &found, Arc::clone(&sizes), last).map_err(RaftError::Read)?;
    let (machine, views) = Machine::start(snapshot, (disk, log.writer()), Arc::clone(&sizes));
    let raft = Raft::new(FIRST, library_config()?, Alone, log, machine).await.map_err(stopped)?;
    lead(&raft).await?;

    let (requests, others) = mpsc::channel(QUEUE);
    let (own, own_queue) = mpsc::channel(OWN_QUEUE);
    let metrics = raft.metrics();
    let clock = Arc::new(Clock::new(config.wall, views.borrow().time()));
    let sequencer = Sequencer {
        requests,
        own,
        views: views.clone(),
        metrics: metrics.clone(),
        clock: Arc::clone(&clock),
    };
    let writer = Writer {
        raft,
        views,
        metrics,
        queue: Queue { own: own_queue, others },
        free_space: FreeSpace {
            directory: config.directory,
            reserve: config.reserve_bytes,
            free: config.free_bytes,
            sizes: Arc::clone(&sizes),
        },
        asked: sizes.written().saturating_sub(found.uncovered),
        sizes,
        clock,
        snapshot_index,
        token: scope.token(),
    };
    scope.spawn("raft", writer.run(thread));
    Ok(sequencer)
}

fn stopped(error: impl std::fmt::Display) -> RaftError {
    RaftError::Stopped(error.to_string())
}

fn library_config() -> Result<Arc<openraft::Config>, RaftError> {
    let config = openraft::Config {
        cluster_name: "skep".to_owned(),
        heartbeat_interval: 250,
        election_timeout_min: 1000,
        election_timeout_max: 2000,
        // The cluster's own setting says when: see `Writer::snapshot`.
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: KEPT_ENTRIES,
        purge_batch_size: 256,
        // A restored leader would not know which entries of its log were committed.
        enable_leader_restore: Some(false),
        ..openraft::Config::default()
    };
    config.validate().map(Arc::new).map_err(stopped)
}

/// Becomes leader, and waits until the whole log is applied.
async fn lead(raft: &Node) -> Result<(), RaftError> {
    if raft.is_initialized().await.map_err(stopped)? {
        // Nobody else may lead: there is no reason to wait for an election timeout.
        raft.trigger().elect(false).await.map_err(stopped)?;
    } else {
        let members = BTreeMap::from([(FIRST, Member::default())]);
        raft.initialize(members).await.map_err(stopped)?;
    }
    let ready = |metrics: &RaftMetrics<Consensus>| {
        metrics.state.is_leader()
            && metrics.last_log_index.is_some()
            && metrics.last_applied.map(|id| id.index) == metrics.last_log_index
    };
    let wait = raft.wait(Some(START_LIMIT)).metrics(ready, "leader").await;
    wait.map(drop).map_err(|error| RaftError::NoLeader(error.to_string()))
}

/// Decides requests and writes them, batch by batch.
struct Writer {
    raft: Node,
    views: watch::Receiver<View>,
    metrics: Metrics,
    queue: Queue,
    free_space: FreeSpace,
    sizes: Arc<Sizes>,
    /// What was written when a snapshot was asked for last.
    asked: u64,
    clock: Arc<Clock>,
    snapshot_index: u64,
    token: CancellationToken,
}

/// What waits to be decided.
struct Queue {
    own: mpsc::Receiver<Request>,
    others: mpsc::Receiver<Request>,
}

impl Queue {
    /// Waits for requests and takes up to a batch, the manager's own first: they are few, and leave
    /// room for others in every batch. Cancel-safe. None when every handle is gone.
    async fn take(&mut self) -> Option<Vec<Request>> {
        let first = tokio::select! {
            biased;
            Some(request) = self.own.recv() => request,
            Some(request) = self.others.recv() => request,
            else => return None,
        };
        let mut batch = vec![first];
        while batch.len() < BATCH
            && let Ok(request) = self.own.try_recv().or_else(|_| self.others.try_recv())
        {
            batch.push(request);
        }
        Some(batch)
    }

    fn close(&mut self) {
        self.own.close();
        self.others.close();
    }
}

/// A batch that was decided: what it changes, and who waits for it.
struct Batch {
    record: Record,
    waiting: Vec<oneshot::Sender<Outcome>>,
}

impl Writer {
    async fn run(mut self, thread: JoinHandle<()>) -> Result<(), RaftError> {
        let result = self.serve().await;
        self.queue.close();
        // The thread of the file ends when the library has dropped the log: only then is
        // everything written and the file closed.
        let shutdown = self.raft.shutdown().await;
        drop(self);
        let joined = tokio::task::spawn_blocking(move || thread.join()).await;
        if let Ok(Err(_panic)) = joined {
            return Err(stopped("the thread of the log panicked"));
        }
        result.and(shutdown.map_err(stopped))
    }

    async fn serve(&mut self) -> Result<(), RaftError> {
        let token = self.token.clone();
        loop {
            tokio::select! {
                biased;
                () = token.cancelled() => return Ok(()),
                changed = self.metrics.changed() => {
                    changed.map_err(|_gone| stopped("its library ended"))?;
                    self.metrics.borrow_and_update().running_state.clone().map_err(stopped)?;
                }
                requests = self.queue.take() => {
                    let Some(requests) = requests else {
                        // Every handle is gone: wait to be told to end.
                        token.cancelled().await;
                        return Ok(());
                    };
                    self.take(requests).await?;
                }
            }
        }
    }

    async fn take(&mut self, requests: Vec<Request>) -> Result<(), RaftError> {
        let view = self.views.borrow().clone();
        let batch = decide(requests, view, self.clock.read().now);
        if batch.record.changes.is_empty() {
            return Ok(());
        }
        if let Err(fault) = self.has_room().await? {
            answer(batch.waiting, &Err(fault));
            return Ok(());
        }
        self.write(batch).await?;
        self.snapshot().await
    }

    /// Says whether the disk has room for one more entry and the snapshot after it. What came since
    /// the state was measured may have replaced what was there before: nobody is refused for it
    /// until that has been looked at.
    async fn has_room(&self) -> Result<Result<(), Fault>, RaftError> {
        let checked = self.free_space.check();
        if checked.is_ok() || self.sizes.unmeasured() == 0 {
            return Ok(checked);
        }
        let (written, view) = (self.sizes.written(), self.views.borrow().clone());
        let encoded = tokio::task::spawn_blocking(move || encode_state(&view)).await;
        let state = encoded.map_err(stopped)?.map_err(stopped)?;
        self.sizes.measure(bytes(&state), written);
        Ok(self.free_space.check())
    }

    /// Puts a batch into the log. No other batch is decided before it is known how this one went.
    async fn write(&mut self, batch: Batch) -> Result<(), RaftError> {
        let write = self.raft.client_write(batch.record);
        tokio::pin!(write);
        let mut waiting = batch.waiting;
        let outcome = loop {
            tokio::select! {
                outcome = &mut write => break outcome,
                () = self.token.cancelled() => return Ok(()),
                () = tokio::time::sleep(WRITE_LIMIT), if !waiting.is_empty() => {
                    tracing::warn!("the disk of the log takes too long");
                    answer(waiting.drain(..), &Err(slow_disk()));
                }
                // The manager's own wait: what they would lose is worth more than an early answer.
                request = self.queue.others.recv(), if waiting.is_empty() => match request {
                    Some(request) => answer([request.reply], &Err(busy_disk())),
                    None => self.token.cancelled().await,
                },
            }
        };
        match outcome {
            Ok(written) => answer(waiting, &Ok(Version(written.log_id.index))),
            Err(Refusal::APIError(
                ClientWriteError::ForwardToLeader(_) | ClientWriteError::LogEntryDiscarded(_),
            )) => {
                answer(waiting, &Err(Fault::unavailable("the cluster has no leader: try again")));
            }
            Err(Refusal::APIError(
                error @ (ClientWriteError::ChangeMembershipError(_)
                | ClientWriteError::PreconditionFailed(_)),
            )) => {
                answer(waiting, &Err(Fault::internal(error.to_string())));
            }
            Err(Refusal::Fatal(error)) => {
                let fault = format!("this manager cannot write the cluster's log: {error}");
                answer(waiting, &Err(Fault::unavailable(fault)));
                return Err(stopped(error));
            }
        }
        Ok(())
    }

    /// Asks for a snapshot when enough was written since the last one.
    async fn snapshot(&mut self) -> Result<(), RaftError> {
        let (index, interval) = {
            let view = self.views.borrow();
            let default = ClusterSpec::default().snapshot_interval;
            let interval = view.cluster().map_or(default, |cluster| cluster.spec.snapshot_interval);
            (view.version().0, interval.max(1))
        };
        let is_due = index.saturating_sub(self.snapshot_index) >= interval;
        if is_due || self.sizes.is_due(self.asked) {
            self.snapshot_index = index;
            self.asked = self.sizes.written();
            self.raft.trigger().snapshot().await.map_err(stopped)?;
        }
        Ok(())
    }
}

/// Decides what is still waited for. Those that have nothing to change in `view` itself are answered
/// here: they need no room on the disk.
fn decide(requests: Vec<Request>, view: View, time: Timestamp) -> Batch {
    let present = view.version();
    let before = view.clone();
    // Whoever closed the reply has given up: what nobody waits for is not begun.
    let waited = requests.into_iter().filter(|request| !request.reply.is_closed());
    let (closures, replies): (Vec<_>, Vec<_>) = waited.map(|it| (it.decide, it.reply)).unzip();
    let Decisions { changes, decided } = crate::decide::decide(closures, view, time);
    let mut waiting = Vec::with_capacity(replies.len());
    for (decided, reply) in decided.into_iter().zip(replies) {
        match decided {
            Decided::AsItIs => answer([reply], &Ok(present)),
            Decided::Changes => waiting.push(reply),
            Decided::Refused(fault) => answer([reply], &Err(fault)),
        }
    }
    let specs = changes.new_specs(&before);
    let record = Record { format: Format::PRESENT, changes, specs, time };
    Batch { record, waiting }
}

fn answer(waiting: impl IntoIterator<Item = oneshot::Sender<Outcome>>, outcome: &Outcome) {
    for reply in waiting {
        // Whoever asked may have gone.
        drop(reply.send(outcome.clone()));
    }
}

fn slow_disk() -> Fault {
    Fault::unavailable(
        "this manager's disk did not take the change in time; it may still be made later",
    )
}

fn busy_disk() -> Fault {
    Fault::unavailable("this manager waits for its disk: try again")
}
