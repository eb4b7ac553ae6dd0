//! The loop that owns what is known and what is here, and makes kernel and names follow.
//!
//! Commands only change what is known; [`Run::settle`] then makes everything so, once for all
//! commands that had arrived. News of the name server wake it as well: its ports are in the
//! rules. What fails, fails alone and is tried again with a growing pause, however many commands
//! arrive meanwhile. All is looked at anew when the kernel says that somebody else has touched it,
//! and every half minute.

mod attach;
mod settle;

use crate::error::Error;
use crate::handle::{Command, Config, Identity, News, Reply};
use crate::journal::{Journal, Kept};
use crate::names::Names;
use crate::port::Namespaces;
use discovery::{
    Depth, Desired, Here, Kernel, Knowledge, KnowledgeDifference, OrdMap, OrdSet, Outcome, Sandbox,
};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tokio_util::sync::CancellationToken;
use types::TaskId;

/// How long things may take. Tests are less patient.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// All is looked at anew this often.
    pub(crate) repair: Duration,
    /// How long a caller waits for an apply that keeps failing.
    pub(crate) patience: Duration,
    /// How long the name server may take until the kernel goes on without it.
    pub(crate) names: Duration,
    /// How long the disk may take until the kernel goes on without it.
    pub(crate) journal: Duration,
}

impl Pace {
    pub(crate) const USUAL: Self = Self {
        repair: Duration::from_secs(30),
        patience: Duration::from_secs(10),
        names: Duration::from_secs(2),
        journal: Duration::from_secs(2),
    };
}

/// The pause after the first failure; it doubles from one to the next.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
/// How long making, binding in and removing a namespace may take.
const NAMESPACE: Duration = Duration::from_secs(10);
/// Commands that are taken together before they are applied.
const BATCH: usize = 256;
/// The IANA port of VXLAN, until a manager says otherwise.
const VXLAN_PORT: u16 = 4789;

pub(crate) struct Run<K, N> {
    config: Config,
    kernel: K,
    namespaces: N,
    names: Names,
    journal: Journal,
    token: CancellationToken,
    pace: Pace,
    identity: Option<Identity>,
    here: Here,
    known: Knowledge,
    /// Of what was learned last; 0: nothing, in this process.
    version: u64,
    applied: watch::Sender<u64>,
    trouble: watch::Sender<String>,
    last_gateway: Option<Ipv4Addr>,
    /// What the kernel was told last, how that went, and how much of it is to be believed.
    held: Option<Arc<Desired>>,
    outcome: Outcome,
    depth: Depth,
    /// What is here and what is known is on disk.
    is_saved: bool,
    /// Namespaces to remove once the kernel has let them go.
    leaving: Vec<(String, Option<Reply<()>>)>,
    waiting: Vec<Waiter>,
    /// When what failed is tried again, and the pause after that.
    retry: Option<Instant>,
    pause: Duration,
}

/// Somebody who waits until the kernel holds what they asked for.
struct Waiter {
    until: Instant,
    reply: WaiterReply,
}

enum WaiterReply {
    Attached(String, Reply<Sandbox>),
    Done(Reply<()>),
}

impl<K: Kernel, N: Namespaces> Run<K, N> {
    /// Takes over what the journal knows and is still there.
    pub(crate) async fn open(
        config: Config,
        (kernel, namespaces, names): (K, N, Names),
        (applied, trouble): (watch::Sender<u64>, watch::Sender<String>),
        (token, pace): (CancellationToken, Pace),
    ) -> Result<Self, Error> {
        let journal = Journal::open(&config.dir).await?;
        let Kept { identity, sandboxes, hidden, known } = journal.load();
        let mut run = Self {
            here: Here { hidden, ..here(identity.as_ref()) },
            identity,
            config,
            kernel,
            namespaces,
            names,
            journal,
            token,
            pace,
            known,
            version: 0,
            applied,
            trouble,
            last_gateway: sandboxes
                .values()
                .filter_map(|sandbox| sandbox.gateway_addresses.v4)
                .max(),
            held: None,
            outcome: Outcome::default(),
            depth: Depth::Repair,
            is_saved: true,
            leaving: Vec::new(),
            waiting: Vec::new(),
            // The kernel may hold something else after a crash.
            retry: Some(now()),
            pause: PAUSE_FIRST,
        };
        for (id, sandbox) in sandboxes {
            if run.namespaces.exists(Path::new(&sandbox.netns)).await {
                run.here.sandboxes.insert(id, sandbox);
            } else {
                tracing::info!(container = id, "its namespace has gone");
            }
        }
        run.name(run.known.clone()).await;
        run.clear_away().await;
        Ok(run)
    }

    pub(crate) async fn run(mut self, mut commands: mpsc::Receiver<Command>) -> Result<(), Error> {
        let mut repair = interval(self.pace.repair);
        repair.set_missed_tick_behavior(MissedTickBehavior::Delay);
        repair.reset();
        let token = self.token.clone();
        loop {
            let wake = self.wake();
            let mut news = self.names.news();
            tokio::select! {
                () = token.cancelled() => break,
                command = commands.recv() => {
                    // Without anybody to ask, the loop still serves what is here.
                    let Some(command) = command else {
                        token.cancelled().await;
                        break;
                    };
                    self.handle(command).await?;
                    for _ in 0..BATCH {
                        let Ok(command) = commands.try_recv() else { break };
                        self.handle(command).await?;
                    }
                }
                Ok(()) = news.changed() => {}
                () = sleep_until(wake.unwrap_or_else(now)), if wake.is_some() => self.awake(),
                () = self.kernel.disturbed() => self.depth = self.depth.max(Depth::Rules),
                _ = repair.tick() => self.depth = Depth::Repair,
            }
            self.settle().await?;
        }
        Ok(())
    }

    /// When to look again though nothing happens: at what failed, and at who has waited for too long.
    fn wake(&self) -> Option<Instant> {
        self.retry.into_iter().chain(self.waiting.iter().map(|waiter| waiter.until)).min()
    }

    fn awake(&mut self) {
        if self.retry.take_if(|retry| *retry <= now()).is_some() {
            self.depth = self.depth.max(Depth::Retry);
        }
    }

    async fn handle(&mut self, command: Command) -> Result<(), Error> {
        match command {
            Command::Identify(identity, reply) => {
                let is_over = identity.is_none();
                self.identify(identity);
                if is_over {
                    self.wait(WaiterReply::Done(reply));
                } else {
                    // One network that cannot be made keeps nobody from the cluster.
                    drop(reply.send(Ok(())));
                }
            }
            Command::Learn(news, version, reply) => drop(reply.send(self.learn(news, version))),
            Command::Attach(id, wanted, reply) => {
                if self.leaving.iter().any(|(leaving, _)| *leaving == id) {
                    // The old namespace goes first, else it would take the new one along.
                    self.settle().await?;
                }
                match self.attach(&id, wanted).await {
                    Ok(()) => self.wait(WaiterReply::Attached(id, reply)),
                    Err(error) => drop(reply.send(Err(error))),
                }
            }
            Command::Detach(id, reply) => {
                self.part(&id);
                self.leaving.push((id, Some(reply)));
            }
            Command::Withdraw(task, reply) => {
                self.withdraw(task);
                self.wait(WaiterReply::Done(reply));
            }
            Command::Sandboxes(reply) => drop(reply.send(Ok(self.here.sandboxes.clone()))),
            Command::Places(id, reply) => {
                let sandbox = self.here.sandboxes.get(&id);
                let places = sandbox.map(|sandbox| discovery::places(&self.known, sandbox));
                drop(reply.send(Ok(places.unwrap_or_default())));
            }
        }
        Ok(())
    }

    fn wait(&mut self, reply: WaiterReply) {
        self.waiting.push(Waiter { until: now() + self.pace.patience, reply });
    }

    fn identify(&mut self, identity: Option<Identity>) {
        if identity == self.identity {
            return;
        }
        if identity.is_none() {
            (self.known, self.version) = (Knowledge::default(), 0);
            self.here.hidden.clear();
        }
        let fresh = here(identity.as_ref());
        self.here.node = fresh.node;
        self.here.address = fresh.address;
        self.here.data_path_port = fresh.data_path_port;
        self.identity = identity;
    }

    fn learn(&mut self, news: News, version: u64) -> Result<(), Error> {
        let difference = match news {
            // What stays is shared with what the journal and the name server were told.
            News::Whole(known) => KnowledgeDifference::between(&self.known, &known),
            News::Difference(difference) if version == self.version + 1 => difference,
            News::Difference(_) => {
                return Err(Error::OutOfStep { version, known: self.version });
            }
        };
        self.version = version;
        // Versions rise in one process; it may have been another one before.
        self.applied.send_if_modified(|applied| {
            let anew = *applied >= version;
            if anew {
                *applied = version.saturating_sub(1);
            }
            anew
        });
        if difference.is_empty() {
            return Ok(());
        }
        difference.apply(&mut self.known);
        let known = &self.known;
        let forgotten = self.here.hidden.iter().filter(|task| !known.has_task(task));
        for task in forgotten.cloned().collect::<Vec<_>>() {
            self.here.hidden.remove(&task);
        }
        Ok(())
    }

    fn withdraw(&mut self, task: TaskId) {
        self.here.hidden.insert(task);
    }

    fn netns(&self, id: &str) -> PathBuf {
        self.config.netns_dir.join(id)
    }
}

/// What is here before anything is attached.
fn here(identity: Option<&Identity>) -> Here {
    let identity = identity.cloned().unwrap_or(Identity {
        node: types::NodeId::default(),
        address: Ipv4Addr::UNSPECIFIED.into(),
        data_path_port: VXLAN_PORT,
    });
    Here {
        node: identity.node,
        address: identity.address,
        data_path_port: identity.data_path_port,
        sandboxes: OrdMap::new(),
        hidden: OrdSet::new(),
    }
}

/// An effect that took too long has failed.
fn flatten<T>(
    outcome: Result<std::io::Result<T>, tokio::time::error::Elapsed>,
) -> std::io::Result<T> {
    outcome.unwrap_or_else(|elapsed| Err(elapsed.into()))
}

#[expect(clippy::disallowed_methods, reason = "deadlines of this loop")]
fn now() -> Instant {
    Instant::now()
}
