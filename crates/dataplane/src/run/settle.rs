//! Making it so: journal, kernel and names follow what is known and what is here.

use super::{NAMESPACE, PAUSE_FIRST, Run, Waiter, WaiterReply, flatten, now};
use crate::error::Error;
use crate::journal::Local;
use crate::port::Namespaces;
use discovery::{Desired, Kernel, Projection, project};
use std::time::Duration;
use tokio::time::timeout;

/// How long the kernel may take.
const APPLY: Duration = Duration::from_secs(30);
/// Pauses between attempts grow up to this.
const PAUSE_LONGEST: Duration = Duration::from_secs(8);

impl<K: Kernel, N: Namespaces> Run<K, N> {
    /// Makes kernel and names follow what is known and what is here.
    pub(super) async fn settle(&mut self) {
        let projection = project(&self.known, &self.here);
        let outcome = self.apply(&projection.desired).await;
        self.publish(projection);
        match outcome {
            Ok(()) => {
                self.retry = None;
                self.pause = PAUSE_FIRST;
                let version = self.version;
                self.applied
                    .send_if_modified(|applied| std::mem::replace(applied, version) != version);
                self.content();
            }
            Err(error) => {
                tracing::warn!(error, "network state not applied, trying again");
                self.retry = Some(now() + self.pause);
                self.pause = (self.pause * 2).min(PAUSE_LONGEST);
                self.disappoint(&error).await;
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

    fn publish(&self, projection: Projection) {
        for (id, zone) in projection.zones {
            if let Some(server) = self.servers.get(&id) {
                server.publish(zone);
            }
        }
    }

    /// Tells everybody who waits that it is done.
    fn content(&mut self) {
        for waiter in std::mem::take(&mut self.waiting) {
            match waiter.reply {
                WaiterReply::Done(reply) => drop(reply.send(Ok(()))),
                WaiterReply::Attached(id, reply) => {
                    // It may have been detached meanwhile.
                    let sandbox = self.here.sandboxes.get(&id).cloned();
                    drop(reply.send(sandbox.ok_or(Error::Detached(id))));
                }
            }
        }
    }

    /// Tells those who have waited long enough that it failed. What could not be attached is taken
    /// away again.
    async fn disappoint(&mut self, error: &str) {
        let now = now();
        let (over, waiting): (Vec<Waiter>, Vec<Waiter>) =
            std::mem::take(&mut self.waiting).into_iter().partition(|waiter| waiter.until <= now);
        self.waiting = waiting;
        for waiter in over {
            let failure = Error::Kernel(error.to_owned());
            match waiter.reply {
                WaiterReply::Done(reply) => drop(reply.send(Err(failure))),
                WaiterReply::Attached(id, reply) => {
                    self.part(&id).await;
                    self.leaving.push((id, None));
                    drop(reply.send(Err(failure)));
                }
            }
        }
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
