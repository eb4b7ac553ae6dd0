//! The one writer: puts everybody's changes in one order and into the log.
//!
//! It decides on the leader alone, and only on a view that has everything before its term: what two
//! leaders decide never rests on the same view. An entry carries the term in which it was decided,
//! and the library refuses it in any other.

use crate::RaftError;
use crate::clock::Clock;
use crate::consensus::Record;
use crate::decide::{Decided, Decisions};
use crate::disk::bytes;
use crate::free_space::FreeSpace;
use crate::leadership::{Leadership, is_alone};
use crate::log::Log;
use crate::machine::encode_state;
use crate::open::stopped;
use crate::sequencer::{
    Metrics, Node, Outcome, Request, WRITE_LIMIT, broken, confirm, refusal, replaced,
};
use crate::sizes::Sizes;
use crate::transfer::Handover;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::impls::ProgressResponder;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use store::View;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use types::{ClusterSpec, Fault, Timestamp, Version};

/// Changes that may wait to be decided. Whoever comes when it is full waits for a place, for as long
/// as for the disk.
pub(crate) const QUEUE: usize = 1024;
/// Changes of the manager's own loops that may wait: each of them has one at a time.
pub(crate) const OWN_QUEUE: usize = 4;
/// Changes that become one entry of the log at most.
const BATCH: usize = 256;
/// How long the others may take to say that this manager still leads.
const CONFIRM_LIMIT: Duration = Duration::from_secs(2);
/// How long nothing happens before the log notes by itself what is committed.
const PAUSE: Duration = Duration::from_millis(50);

/// Decides requests and writes them, batch by batch.
pub(crate) struct Writer {
    pub(crate) raft: Node,
    pub(crate) log: Log,
    pub(crate) views: watch::Receiver<View>,
    pub(crate) metrics: Metrics,
    pub(crate) queue: Queue,
    pub(crate) handovers: mpsc::Receiver<Handover>,
    pub(crate) free_space: FreeSpace,
    pub(crate) sizes: Arc<Sizes>,
    /// What was written when a snapshot was asked for last.
    pub(crate) asked: u64,
    pub(crate) clock: Arc<Clock>,
    pub(crate) snapshot_index: u64,
    /// Up to where the log was to be forgotten last.
    pub(crate) purged: u64,
    pub(crate) token: CancellationToken,
}

/// What waits to be decided.
pub(crate) struct Queue {
    pub(crate) own: mpsc::Receiver<Request>,
    pub(crate) others: mpsc::Receiver<Request>,
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

/// A batch that was decided: what it changes, who waits for it, and who is told at once.
struct Batch {
    record: Record,
    waiting: Vec<oneshot::Sender<Outcome>>,
    answers: Vec<Answer>,
}

/// What a closure came to that changes nothing. It is only told once it is sure that the view was
/// the newest: by the entry that was decided on it, or by the others.
type Answer = (oneshot::Sender<Outcome>, Outcome);

impl Writer {
    pub(crate) async fn run(mut self, thread: JoinHandle<()>) -> Result<(), RaftError> {
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
                    self.look()?;
                    self.snapshot().await?;
                    self.purge().await?;
                }
                Some(handover) = self.handovers.recv() => {
                    tokio::select! {
                        () = handover.run(&self.raft, &mut self.metrics) => {}
                        () = token.cancelled() => return Ok(()),
                    }
                }
                requests = self.queue.take() => {
                    let Some(requests) = requests else {
                        // Every handle is gone: wait to be told to end.
                        token.cancelled().await;
                        return Ok(());
                    };
                    self.take(requests).await?;
                }
                () = tokio::time::sleep(PAUSE), if self.has_to_note() => {
                    self.log.note_committed().await.map_err(RaftError::Read)?;
                }
            }
        }
    }

    /// Sees whether the library goes on, and who leads.
    fn look(&mut self) -> Result<Leadership, RaftError> {
        let metrics = self.metrics.borrow_and_update();
        metrics.running_state.clone().map_err(stopped)?;
        Ok(Leadership::of(&metrics))
    }

    /// A member that is alone finds by itself what is committed.
    fn has_to_note(&self) -> bool {
        self.log.is_behind() && !is_alone(&self.metrics.borrow_watched())
    }

    async fn take(&mut self, requests: Vec<Request>) -> Result<(), RaftError> {
        // The term first: the view is at least as new.
        let leadership = self.look()?;
        if !leadership.is_own {
            let replies = requests.into_iter().map(|request| request.reply);
            answer(replies, &Err(Fault::not_leading()));
            return Ok(());
        }
        let view = self.views.borrow().clone();
        let now = (self.clock.read().now, *self.raft.node_id());
        let mut batch = decide(requests, view, now);
        if !batch.waiting.is_empty()
            && let Err(fault) = self.has_room().await?
        {
            answer(batch.waiting.drain(..), &Err(fault));
        }
        if is_alone(&self.metrics.borrow_watched()) {
            tell(std::mem::take(&mut batch.answers));
        }
        if batch.waiting.is_empty() {
            self.confirm(batch.answers).await;
            return Ok(());
        }
        self.write(batch, leadership.term).await?;
        self.snapshot().await
    }

    /// Tells what changes nothing, once the others say that this manager still leads.
    async fn confirm(&self, answers: Vec<Answer>) {
        if answers.is_empty() {
            return;
        }
        match confirm(&self.raft, CONFIRM_LIMIT).await {
            Ok(_) => tell(answers),
            Err(fault) => refuse(answers, fault),
        }
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
    async fn write(&mut self, batch: Batch, term: u64) -> Result<(), RaftError> {
        let Batch { record, mut waiting, mut answers } = batch;
        let (responder, mut written) = ProgressResponder::complete_only();
        let write = self.raft.write(record).responder(responder).with_leader(term);
        write.await.map_err(stopped)?;
        let late = tokio::time::sleep(WRITE_LIMIT);
        tokio::pin!(late);
        let mut leads = true;
        let outcome = loop {
            tokio::select! {
                outcome = &mut written => break outcome,
                () = self.token.cancelled() => return Ok(()),
                () = &mut late, if !waiting.is_empty() => {
                    tracing::warn!("a change of the cluster takes too long");
                    answer(waiting.drain(..), &Err(slow()));
                    refuse(answers.drain(..), slow());
                }
                changed = self.metrics.changed() => {
                    changed.map_err(|_gone| stopped("its library ended"))?;
                    let present = self.look()?;
                    leads = present.is_own && present.term == term;
                    if !leads {
                        answer(waiting.drain(..), &Err(replaced()));
                        refuse(answers.drain(..), Fault::not_leading());
                    }
                }
                request = self.queue.others.recv(), if waiting.is_empty() => match request {
                    Some(request) => answer([request.reply], &Err(busy(leads))),
                    None => self.token.cancelled().await,
                },
                // The manager's own wait while it leads: what they would lose is worth more than an
                // early answer.
                Some(request) = self.queue.own.recv(), if !leads => {
                    answer([request.reply], &Err(Fault::not_leading()));
                }
            }
        };
        match outcome {
            Ok(Ok(written)) => {
                answer(waiting, &Ok(Version(written.log_id.index)));
                tell(answers);
            }
            Ok(Err(error)) => {
                answer(waiting, &Err(refusal(&error)));
                refuse(answers, refusal(&error));
            }
            Err(_gone) => {
                let state = self.metrics.borrow_watched().running_state.clone();
                let error = state.err().map_or("its library ended".to_owned(), |it| it.to_string());
                answer(waiting, &Err(broken(&error)));
                return Err(stopped(error));
            }
        }
        Ok(())
    }

    /// Asks for a snapshot when enough was written since the last one, by whomever.
    async fn snapshot(&mut self) -> Result<(), RaftError> {
        let installed = self.metrics.borrow_watched().snapshot.map_or(0, |id| id.index);
        self.snapshot_index = self.snapshot_index.max(installed);
        let index = self.views.borrow().version().0;
        let interval = self.setting(|spec| spec.snapshot_interval).max(1);
        let is_due = index.saturating_sub(self.snapshot_index) >= interval;
        if is_due || self.sizes.is_due(self.asked) {
            self.snapshot_index = index;
            self.asked = self.sizes.written();
            self.raft.trigger().snapshot().await.map_err(stopped)?;
        }
        Ok(())
    }

    /// Forgets what a snapshot covers, but for what is kept for members that lag.
    async fn purge(&mut self) -> Result<(), RaftError> {
        let covered = self.metrics.borrow_watched().snapshot.map_or(0, |id| id.index);
        let upto = covered.saturating_sub(self.setting(|spec| spec.kept_entries));
        if self.purged < upto {
            self.purged = upto;
            self.raft.trigger().purge_log(upto).await.map_err(stopped)?;
        }
        Ok(())
    }

    /// What the cluster wants, or what is usual where there is none yet.
    fn setting(&self, of: fn(&ClusterSpec) -> u64) -> u64 {
        let view = self.views.borrow();
        view.cluster().map_or_else(|| of(&ClusterSpec::default()), |cluster| of(&cluster.spec))
    }
}

/// Decides what is still waited for.
fn decide(requests: Vec<Request>, view: View, (time, leader): (Timestamp, u64)) -> Batch {
    let present = view.version();
    let before = view.clone();
    // Whoever closed the reply has given up: what nobody waits for is not begun.
    let waited = requests.into_iter().filter(|request| !request.reply.is_closed());
    let (closures, replies): (Vec<_>, Vec<_>) = waited.map(|it| (it.decide, it.reply)).unzip();
    let Decisions { changes, decided } = crate::decide::decide(closures, view, time);
    let (mut waiting, mut answers) = (Vec::with_capacity(replies.len()), Vec::new());
    for (decided, reply) in decided.into_iter().zip(replies) {
        match decided {
            Decided::AsItIs => answers.push((reply, Ok(present))),
            Decided::Changes => waiting.push(reply),
            Decided::Refused(fault) => answers.push((reply, Err(fault))),
        }
    }
    let (specs, format) = (changes.new_specs(&before), changes.format(&before));
    let record = Record { format, changes, specs, time, leader };
    Batch { record, waiting, answers }
}

fn answer(waiting: impl IntoIterator<Item = oneshot::Sender<Outcome>>, outcome: &Outcome) {
    for reply in waiting {
        // Whoever asked may have gone.
        drop(reply.send(outcome.clone()));
    }
}

fn tell(answers: Vec<Answer>) {
    for (reply, outcome) in answers {
        answer([reply], &outcome);
    }
}

fn refuse(answers: impl IntoIterator<Item = Answer>, fault: Fault) {
    answer(answers.into_iter().map(|(reply, _)| reply), &Err(fault));
}

fn slow() -> Fault {
    Fault::unavailable(
        "the managers' disks did not take the change in time; it may still be made later",
    )
}

fn busy(leads: bool) -> Fault {
    if !leads {
        return Fault::not_leading();
    }
    Fault::unavailable("this manager waits for the managers' disks: try again")
}
