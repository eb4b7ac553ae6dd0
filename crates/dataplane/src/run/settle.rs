//! Making it so: journal, kernel and names follow what is known and what is here.

use super::{NAMESPACE, PAUSE_FIRST, Run, Waiter, WaiterReply, flatten, now};
use crate::error::Error;
use crate::journal::Local;
use crate::port::Namespaces;
use discovery::{Desired, Kernel, Knowledge, project};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// How long the kernel may take.
const APPLY: Duration = Duration::from_secs(30);
/// Pauses between attempts grow up to this.
const PAUSE_LONGEST: Duration = Duration::from_secs(8);

impl<K: Kernel, N: Namespaces> Run<K, N> {
    /// Makes kernel and names follow what is known and what is here.
    pub(super) async fn settle(&mut self) {
        // Who comes has its DNS port before rules lead there, and who goes has no socket open when
        // its namespace goes. What is new of others waits: a name shall not lead to a VIP that the
        // kernel does not have yet.
        let published = self.names.published().unwrap_or_else(|| Arc::clone(&self.known));
        self.name(published).await;
        let desired = project(&self.known, &self.here).desired;
        let outcome = self.apply(&desired).await;
        let moved = self.name(Arc::clone(&self.known)).await;
        match outcome {
            // Rules lead to ports of before.
            Ok(()) if moved => self.retry = Some(now()),
            Ok(()) => {
                self.retry = None;
                let version = self.version;
                self.applied
                    .send_if_modified(|applied| std::mem::replace(applied, version) != version);
                self.content();
                if self.waiting.is_empty() {
                    self.pause = PAUSE_FIRST;
                } else {
                    self.try_again("the name server is not there");
                }
            }
            Err(error) => {
                tracing::warn!(error, "network state not applied, trying again");
                self.try_again(&error);
            }
        }
        for (id, reply) in std::mem::take(&mut self.leaving) {
            let removed = self.remove(&id).await;
            if let Some(reply) = reply {
                drop(reply.send(removed));
            } else if let Err(error) = removed {
                tracing::warn!(container = id, %error, "namespace left behind");
            }
        }
    }

    /// Writes the journal and the kernel's state, side by side, as far as they changed. Nobody
    /// hears of success before both are done.
    async fn apply(&mut self, desired: &Desired) -> Result<(), String> {
        let local = (!self.local_is_saved).then(|| Local {
            identity: self.identity.clone(),
            sandboxes: self.here.sandboxes.clone(),
            withdrawn: self.here.withdrawn.clone(),
        });
        let save = async {
            if let Some(local) = &local {
                self.journal.save_local(local).await?;
            }
            if !self.knowledge_is_saved {
                self.journal.save_knowledge(&self.known).await?;
            }
            Ok::<(), Error>(())
        };
        let changed = self.held.as_ref() != Some(desired);
        let apply = async {
            if !changed {
                return Ok(());
            }
            match timeout(APPLY, self.kernel.apply(desired)).await {
                Ok(outcome) => outcome.map_err(|error| chain(&error)),
                Err(_) => Err("the kernel took too long".to_owned()),
            }
        };
        let (saved, applied) = tokio::join!(save, apply);
        if saved.is_ok() {
            (self.local_is_saved, self.knowledge_is_saved) = (true, true);
        }
        if changed {
            self.held = applied.is_ok().then(|| desired.clone());
        }
        saved.map_err(|error| chain(&error)).and(applied)
    }

    /// Lets the name server hold `known` and what is here, and takes its ports over. While it is
    /// away nobody waits for it for long: it is told everything when it comes back. Says whether
    /// ports have changed.
    pub(super) async fn name(&mut self, known: Arc<Knowledge>) -> bool {
        let held = if self.names.is_published(&known, &self.here) {
            self.names.held()
        } else {
            self.names.publish(known, self.here.clone());
            let held = self.names.hold(self.pace.names).await;
            if held.is_none() {
                tracing::warn!("the name server does not answer, going on without it");
            }
            held
        };
        let mut moved = false;
        for (id, port) in held.into_iter().flat_map(|held| held.ports) {
            if let Some(sandbox) = self.here.sandboxes.get_mut(&id) {
                moved |= std::mem::replace(&mut sandbox.dns_port, port) != port;
            }
        }
        if moved {
            self.local_is_saved = false;
            self.names.note(&self.here);
        }
        moved
    }

    fn try_again(&mut self, error: &str) {
        self.retry = Some(now() + self.pause);
        self.pause = (self.pause * 2).min(PAUSE_LONGEST);
        self.disappoint(error);
    }

    /// Tells everybody that it is done, but those whose container has no name server yet.
    fn content(&mut self) {
        for waiter in std::mem::take(&mut self.waiting) {
            match waiter.reply {
                WaiterReply::Done(reply) => drop(reply.send(Ok(()))),
                WaiterReply::Attached(id, reply) => match self.here.sandboxes.get(&id) {
                    None => drop(reply.send(Err(Error::Detached(id)))),
                    Some(sandbox) if sandbox.dns_port != 0 => {
                        drop(reply.send(Ok(sandbox.clone())));
                    }
                    Some(_) => {
                        let reply = WaiterReply::Attached(id, reply);
                        self.waiting.push(Waiter { until: waiter.until, reply });
                    }
                },
            }
        }
    }

    /// Tells those who have waited long enough that it failed. What could not be attached is taken
    /// away again.
    fn disappoint(&mut self, error: &str) {
        let now = now();
        let (over, waiting): (Vec<Waiter>, Vec<Waiter>) =
            std::mem::take(&mut self.waiting).into_iter().partition(|waiter| waiter.until <= now);
        self.waiting = waiting;
        for waiter in over {
            match waiter.reply {
                WaiterReply::Done(reply) => {
                    drop(reply.send(Err(Error::Kernel(error.to_owned()))));
                }
                WaiterReply::Attached(id, reply) => {
                    drop(reply.send(Err(self.failure(&id, error))));
                    self.part(&id);
                    self.leaving.push((id, None));
                }
            }
        }
    }

    /// Why a container is not attached.
    fn failure(&mut self, id: &str, error: &str) -> Error {
        let is_named = self.here.sandboxes.get(id).is_none_or(|sandbox| sandbox.dns_port != 0);
        if is_named {
            return Error::Kernel(error.to_owned());
        }
        let reason = self.names.held().and_then(|mut held| held.failed.remove(id));
        let source = std::io::Error::other(reason.unwrap_or_else(|| error.to_owned()));
        Error::Resolver { path: self.netns(id), source }
    }

    async fn remove(&mut self, id: &str) -> Result<(), Error> {
        let path = self.netns(id);
        let removed = timeout(NAMESPACE, self.namespaces.remove(&path)).await;
        flatten(removed).map_err(|source| Error::Namespace { path, source })
    }
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
