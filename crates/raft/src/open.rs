//! How the log of a member begins.

use crate::alone;
use crate::clock::{Clock, time_of_day};
use crate::consensus::{Consensus, Member};
use crate::disk::{Disk, Found, Keys};
use crate::free_space::{FreeSpace, RESERVE_BYTES, free_bytes};
use crate::leadership::{self, Leadership, is_alone};
use crate::log::Log;
use crate::machine::Machine;
use crate::membership;
use crate::network::{Network, Peers};
use crate::receive::Receiver;
use crate::sequencer::{Node, Sequencer, Shared};
use crate::sizes::Sizes;
use crate::writer::{OWN_QUEUE, QUEUE, Queue, Writer};
use crate::{FIRST_MEMBER, RaftError};
use openraft::async_runtime::watch::WatchReceiver;
use openraft::{Raft, RaftMetrics, SnapshotPolicy};
use scope::Scope;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc, watch};
use types::Timestamp;

/// How long a single manager may take to become its own leader and to read its log.
const START_LIMIT: Duration = Duration::from_mins(1);
/// How often a leader is heard of; in milliseconds, as the other times of elections. When it is
/// killed, another one stands 1.0 to 1.2 s later: after [`ELECTION_MAX`], when nobody is bound to the
/// last leader any more, and a time by chance between the two, so that they do not stand at once.
const HEARTBEAT: u64 = 125;
/// Ten times what a slow disk takes for one write.
const ELECTION_MIN: u64 = 400;
const ELECTION_MAX: u64 = 600;

/// How a member comes to its log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// It makes the cluster, alone.
    Found,
    /// It has a log from before.
    Resume,
    /// It has a log from before, and all others that had it are lost: it goes on alone.
    Alone,
    /// It has none, or was interrupted before it had; the leader will send it.
    Join,
}

/// Where the log is, and whose.
#[derive(Clone, Debug)]
pub struct Config {
    /// Its directory; made if it is missing.
    pub directory: PathBuf,
    /// The member whose log it is. A number is never used for another machine.
    pub member: u64,
    pub start: Start,
    /// By which it is sealed on the disk.
    pub keys: Keys,
    /// Changes are refused while the disk has less room than this and what a snapshot takes.
    pub reserve_bytes: u64,
    /// Says what the disk of a directory has free.
    pub free_bytes: fn(&Path) -> io::Result<u64>,
    /// Reads the time of day.
    pub wall: fn() -> Timestamp,
}

impl Config {
    /// That of the manager that makes a cluster.
    pub fn new(directory: impl Into<PathBuf>, keys: impl Into<Keys>) -> Self {
        Self {
            directory: directory.into(),
            member: FIRST_MEMBER,
            start: Start::Found,
            keys: keys.into(),
            reserve_bytes: RESERVE_BYTES,
            free_bytes,
            wall: time_of_day,
        }
    }
}

/// Opens the log of a member; the loops in `scope` close it when the scope ends.
///
/// Where it is the only one that votes, it leads and everything that was written before is in the
/// view when this returns. Otherwise the view holds what the member knew to be settled, and the
/// others decide who leads, once their messages are [received](Sequencer::receive).
pub async fn open(
    config: Config,
    peers: impl Peers,
    scope: &mut Scope,
) -> Result<Sequencer, RaftError> {
    let (member, start) = (config.member, config.start);
    let (disk, mut found) = open_file(&config).await?;
    let disk = Arc::new(disk);
    let snapshot = found.snapshot.take();
    let snapshot_index =
        snapshot.as_ref().and_then(|it| it.meta.last_log_id).map_or(0, |id| id.index);
    let state_bytes = snapshot.as_ref().map_or(0, |it| it.bytes);
    let sizes = Arc::new(Sizes::new(state_bytes, found.uncovered));
    let last = scope.token().drop_guard();
    let started = Log::start(&disk, &found, Arc::clone(&sizes), last);
    let (log, thread) = started.map_err(RaftError::Read)?;
    let (machine, views) =
        Machine::start(snapshot, (Arc::clone(&disk), log.writer()), Arc::clone(&sizes));
    let (network, settings) = (Network::new(peers), library_config()?);
    let raft = Raft::new(member, settings, network, log.clone(), machine).await.map_err(stopped)?;
    begin(&raft, start).await?;

    let free_space = FreeSpace {
        directory: config.directory,
        reserve: config.reserve_bytes,
        free: config.free_bytes,
        sizes: Arc::clone(&sizes),
    };
    let (requests, others) = mpsc::channel(QUEUE);
    let (own, own_queue) = mpsc::channel(OWN_QUEUE);
    let (handovers, handover_queue) = mpsc::channel(1);
    let metrics = raft.metrics();
    let (published, leadership) = watch::channel(Leadership::of(&metrics.borrow_watched()));
    let clock = Arc::new(Clock::new(config.wall, views.clone()));
    let shared = Shared {
        requests,
        own,
        handovers,
        views: views.clone(),
        leadership,
        metrics: metrics.clone(),
        clock: Arc::clone(&clock),
        raft: raft.clone(),
        disk: Arc::downgrade(&disk),
        receiver: Receiver::new(member, raft.clone(), free_space.clone()),
        membership: Semaphore::new(1),
    };
    let sequencer = Sequencer { shared: Arc::new(shared) };
    let writer = Writer {
        raft,
        log,
        views,
        metrics: metrics.clone(),
        queue: Queue { own: own_queue, others },
        handovers: handover_queue,
        free_space,
        asked: sizes.written().saturating_sub(found.uncovered),
        sizes,
        clock,
        snapshot_index,
        purged: found.purged.map_or(0, |id| id.index),
        token: scope.token(),
    };
    scope.spawn("leadership", leadership::run(metrics, published, scope.token()));
    scope.spawn("membership", membership::finish(sequencer.clone(), scope.token()));
    scope.spawn("raft", writer.run(thread));
    Ok(sequencer)
}

async fn open_file(config: &Config) -> Result<(Disk, Found), RaftError> {
    let (directory, member, start) = (config.directory.clone(), config.member, config.start);
    let keys = config.keys.clone();
    let opened = tokio::task::spawn_blocking(move || {
        let (disk, mut found) = Disk::open(&directory, &keys)?;
        let is_new = disk.claim(&directory, member, &found)?;
        match start {
            Start::Resume | Start::Alone if is_new => {
                return Err(RaftError::Lost { path: directory });
            }
            Start::Alone => alone::go_on(&disk, member, &mut found)?,
            Start::Found | Start::Resume | Start::Join => {}
        }
        Ok((disk, found))
    });
    opened.await.map_err(stopped)?
}

pub(crate) fn stopped(error: impl std::fmt::Display) -> RaftError {
    RaftError::Stopped(error.to_string())
}

fn library_config() -> Result<Arc<openraft::Config>, RaftError> {
    let config = openraft::Config {
        cluster_name: "skep".to_owned(),
        heartbeat_interval: HEARTBEAT,
        election_timeout_min: ELECTION_MIN,
        election_timeout_max: ELECTION_MAX,
        // Nobody raises the term who would not be elected: neither who was cut off nor who was removed.
        enable_pre_vote: Some(true),
        // A leader that hears of too few falls silent now and then: one that can speak but not hear
        // would otherwise keep the others from electing. They need twice that time, and some more.
        quorum_loss_probe_interval: Some(3 * ELECTION_MAX),
        // Whoever was away for a moment is not left alone for long.
        backoff: "50ms 100ms 200ms ..500ms".to_owned(),
        // The cluster's own setting says when: see `Writer::snapshot`.
        snapshot_policy: SnapshotPolicy::Never,
        // So does what is kept behind it: see `Writer::purge`.
        max_in_snapshot_log_to_keep: u64::MAX,
        purge_batch_size: 256,
        // A restored leader would not know which entries of its log were committed.
        enable_leader_restore: Some(false),
        ..openraft::Config::default()
    };
    config.validate().map(Arc::new).map_err(stopped)
}

/// Makes the log if it is new, and waits until the whole of it is applied where nobody else votes.
async fn begin(raft: &Node, start: Start) -> Result<(), RaftError> {
    if raft.is_initialized().await.map_err(stopped)? {
        if !is_alone(&raft.metrics().borrow_watched()) {
            return Ok(());
        }
        // Nobody else may lead: there is no reason to wait for an election timeout.
        raft.trigger().elect(false).await.map_err(stopped)?;
    } else {
        match start {
            Start::Found => {
                let members = BTreeMap::from([(*raft.node_id(), Member::default())]);
                raft.initialize(members).await.map_err(stopped)?;
            }
            Start::Resume | Start::Alone | Start::Join => return Ok(()),
        }
    }
    let ready = |metrics: &RaftMetrics<Consensus>| {
        metrics.state.is_leader()
            && metrics.last_log_index.is_some()
            && metrics.last_applied.map(|id| id.index) == metrics.last_log_index
    };
    let wait = raft.wait(Some(START_LIMIT)).metrics(ready, "leader").await;
    wait.map(drop).map_err(|error| RaftError::NoLeader(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consensus::Vote;
    use crate::disk::{Write, encode};
    use crate::{Alone, Key};

    /// It has heard of an election, and of no entry.
    #[tokio::test]
    async fn a_member_that_was_interrupted_before_it_had_the_log_waits_for_it() {
        let dir = tempfile::tempdir().unwrap();
        let config = |start| Config {
            member: 2,
            start,
            reserve_bytes: 0,
            ..Config::new(dir.path().join("raft"), Key::from([7; 32]))
        };
        let mut scope = Scope::new();
        drop(open(config(Start::Join), Alone, &mut scope).await.unwrap());
        scope.cancel();
        scope.join().await.unwrap();
        let (disk, _) =
            Disk::open(&config(Start::Join).directory, &Key::from([7; 32]).into()).unwrap();
        let vote = Write::Vote(encode(&Vote::new(7, 1)).unwrap());
        disk.commit([vote].iter()).unwrap();
        drop(disk);

        let mut scope = Scope::new();
        let opened = open(config(Start::Resume), Alone, &mut scope);
        let opened = tokio::time::timeout(Duration::from_secs(20), opened).await;
        let sequencer = opened.expect("it does not wait for itself to lead").unwrap();
        assert!(!sequencer.is_leader());
        scope.cancel();
        scope.join().await.unwrap();
    }
}
