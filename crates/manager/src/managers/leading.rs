//! What runs on the manager that leads, while it does.

use crate::dispatch::{self, Ask};
use crate::logs::Sinks;
use crate::managers::{roles, rotation};
use crate::plan;
use raft::{Leadership, Sequencer};
use scope::{Scope, ScopeError};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use types::Fault;

type Requests = mpsc::Sender<Ask>;

/// The log and whether this manager leads it, for those who serve nodes and users. Clones are the
/// same.
#[derive(Clone, Debug)]
pub(crate) struct Leading {
    pub(crate) log: Sequencer,
    requests: watch::Receiver<Option<Requests>>,
}

impl Leading {
    /// Fails where this manager does not lead.
    pub(crate) fn check(&self) -> Result<(), Fault> {
        self.requests().map(drop)
    }

    /// The way to the dispatcher.
    pub(crate) fn requests(&self) -> Result<Requests, Fault> {
        self.requests.borrow().clone().ok_or_else(Fault::not_leading)
    }
}

/// What each term is begun with.
#[derive(Clone, Debug)]
pub(crate) struct Term {
    pub(crate) sequencer: Sequencer,
    pub(crate) sinks: Sinks,
    pub(crate) own: roles::Own,
}

impl Term {
    /// Who is told whether this manager leads, and the loop that sees to it.
    pub(crate) fn channel(log: Sequencer) -> (watch::Sender<Option<Requests>>, Leading) {
        let (publish, requests) = watch::channel(None);
        (publish, Leading { log, requests })
    }

    /// Begins what runs while this manager leads, in a scope of its own.
    fn begin(&self, publish: &watch::Sender<Option<Requests>>, token: &CancellationToken) -> Scope {
        let mut scope = Scope::with_token(token.child_token());
        plan::start(self.sequencer.clone(), &mut scope);
        let requests = dispatch::begin(self.sinks.clone(), self.sequencer.clone(), &mut scope);
        let roles = roles::run(self.sequencer.clone(), self.own.clone(), scope.token());
        scope.spawn("roles", roles);
        scope.spawn("rotation", rotation::run(self.sequencer.clone(), scope.token()));
        publish.send_replace(Some(requests));
        scope
    }

    /// Leads whenever the log says so. If it does already, that has begun when this returns.
    pub(crate) fn start(self, publish: watch::Sender<Option<Requests>>, scope: &mut Scope) {
        let leadership = self.sequencer.leadership();
        let now = *leadership.borrow();
        let token = scope.token();
        let begun = now.is_own.then(|| (now.term, self.begin(&publish, &token)));
        scope.spawn("leading", self.run((publish, begun), leadership, token));
    }

    async fn run(
        self,
        (publish, mut begun): (watch::Sender<Option<Requests>>, Option<(u64, Scope)>),
        mut leadership: watch::Receiver<Leadership>,
        token: CancellationToken,
    ) -> Result<(), ScopeError> {
        loop {
            if let Some((term, scope)) = begun.take() {
                let goes_on = |now: &Leadership| now.is_own && now.term == term;
                let ended = scope.token();
                tokio::select! {
                    () = ended.cancelled() => {}
                    () = until(&mut leadership, |now| !goes_on(now)) => {}
                }
                publish.send_replace(None);
                scope.cancel();
                scope.join().await?;
                if !token.is_cancelled() {
                    tracing::info!(term, "this manager leads no more");
                }
            }
            tokio::select! {
                biased;
                () = token.cancelled() => return Ok(()),
                () = until(&mut leadership, |now| now.is_own) => {}
            }
            let term = leadership.borrow().term;
            tracing::info!(term, "this manager leads");
            begun = Some((term, self.begin(&publish, &token)));
        }
    }
}

/// Waits until the log says so. A log that has ended says nothing any more: whoever waits is told to
/// end, too.
async fn until(leadership: &mut watch::Receiver<Leadership>, is_so: impl Fn(&Leadership) -> bool) {
    if leadership.wait_for(is_so).await.is_err() {
        std::future::pending::<()>().await;
    }
}
