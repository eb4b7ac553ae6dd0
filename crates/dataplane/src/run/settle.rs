//! Making it so: journal, kernel and names follow what is known and what is here.

use super::{NAMESPACE, PAUSE_FIRST, Run, Waiter, WaiterReply, flatten, now};
use crate::error::Error;
use crate::journal::Kept;
use crate::port::Namespaces;
use discovery::{Depth, Desired, Kernel, Knowledge, Outcome, Sandbox};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;
use types::chain;

/// How long the kernel may take.
const APPLY: Duration = Duration::from_secs(30);
/// Pauses between attempts grow up to this.
const PAUSE_LONGEST: Duration = Duration::from_secs(8);

impl<K: Kernel, N: Namespaces> Run<K, N> {
    /// Makes kernel and names follow what is known and what is here. Fails when the kernel is of no
    /// use any more.
    pub(super) async fn settle(&mut self) -> Result<(), Error> {
        // Who comes has its DNS port before rules lead there, and who goes has no socket open when
        // its namespace goes. What is new of others waits: a name shall not lead to a VIP that the
        // kernel does not have yet.
        let published = self.names.published().unwrap_or_else(|| self.known.clone());
        self.name(published).await;
        let desired = Arc::new(discovery::desired(&self.known, &self.here));
        let saved = self.apply(&desired).await?;
        let moved = self.name(self.known.clone()).await;
        if let Err(error) = &saved {
            tracing::warn!(error, "cannot write the journal, trying again");
        }
        let done = match saved {
            Ok(()) => self.done(),
            Err(error) => Err(error),
        };
        if done.is_ok() && !moved {
            let version = self.version;
            self.applied.send_if_modified(|applied| std::mem::replace(applied, version) != version);
        }
        // Rules lead to ports of before.
        if moved {
            self.retry = Some(now());
        } else {
            self.answer(&done);
            if done.is_ok() && self.outcome.is_whole() && self.waiting.is_empty() {
                (self.retry, self.pause) = (None, PAUSE_FIRST);
            } else if self.retry.is_none() {
                self.retry = Some(now() + self.pause);
                self.pause = (self.pause * 2).min(PAUSE_LONGEST);
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
        Ok(())
    }

    /// Writes the journal and the kernel's state, side by side, as far as they changed. Nobody
    /// hears of success before both are done, but a disk that hangs keeps nothing from the kernel:
    /// what is taken out must go. The inner failure is the journal's.
    async fn apply(&mut self, desired: &Arc<Desired>) -> Result<Result<(), String>, Error> {
        let save = self.journal.keep(Kept {
            identity: self.identity.clone(),
            sandboxes: self.here.sandboxes.clone(),
            hidden: self.here.hidden.clone(),
            known: self.known.clone(),
        });
        let is_held = self.held.as_ref() == Some(desired);
        let depth = std::mem::replace(&mut self.depth, Depth::Change);
        let apply = async {
            if is_held && depth == Depth::Change {
                return Ok(None);
            }
            match timeout(APPLY, self.kernel.apply(desired, depth)).await {
                Ok(outcome) => outcome.map(Some).map_err(|error| Error::Lost(chain(&error))),
                Err(_) => Ok(Some(Outcome {
                    node: Some("the kernel took too long".to_owned()),
                    is_behind: true,
                    ..Outcome::default()
                })),
            }
        };
        let (saved, applied) = tokio::join!(timeout(self.pace.journal, save), apply);
        let saved = match saved {
            Ok(saved) => saved.map_err(|error| chain(&error)),
            Err(_) => Err("the disk takes too long to write the journal".to_owned()),
        };
        self.is_saved = saved.is_ok();
        if let Some(outcome) = applied? {
            if outcome != self.outcome {
                // What is new is tried again soon.
                (self.retry, self.pause) = (None, PAUSE_FIRST);
            }
            self.outcome = outcome;
            self.held = Some(Arc::clone(desired));
        }
        self.tell_trouble(saved.as_ref().err());
        Ok(saved)
    }

    /// Lets users know what does not work on this node.
    fn tell_trouble(&self, journal: Option<&String>) {
        let troubles = [self.outcome.trouble(), journal.cloned().unwrap_or_default()];
        let troubles: Vec<String> = troubles.into_iter().filter(|one| !one.is_empty()).collect();
        let trouble = troubles.join("; ");
        self.trouble.send_if_modified(|told| {
            let is_news = *told != trouble;
            *told = trouble;
            is_news
        });
    }

    /// Says whether nothing leads any more to what was taken out.
    fn done(&self) -> Result<(), String> {
        match &self.outcome {
            Outcome { node: Some(reason), .. } => Err(reason.clone()),
            Outcome { is_behind: true, sandboxes, mesh, .. } => {
                Err(sandboxes.values().chain(mesh).next().cloned().unwrap_or_default())
            }
            Outcome { .. } => Ok(()),
        }
    }

    /// Lets the name server hold `known` and what is here, and takes its ports over. While it is
    /// away nobody waits for it for long: it is told everything when it comes back. Says whether
    /// ports have changed.
    pub(super) async fn name(&mut self, known: Knowledge) -> bool {
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
            self.names.note(&self.here);
        }
        moved
    }

    /// Tells those who wait how it went, or lets them wait on.
    fn answer(&mut self, done: &Result<(), String>) {
        let now = now();
        for waiter in std::mem::take(&mut self.waiting) {
            let is_over = waiter.until <= now;
            match waiter.reply {
                WaiterReply::Done(reply) => match done {
                    Ok(()) => drop(reply.send(Ok(()))),
                    Err(error) if is_over => {
                        drop(reply.send(Err(Error::Kernel(error.clone()))));
                    }
                    Err(_) => self.wait_on(waiter.until, WaiterReply::Done(reply)),
                },
                WaiterReply::Attached(id, reply) => match self.attached(&id, done) {
                    Ok(sandbox) => drop(reply.send(Ok(sandbox))),
                    Err(error) if is_over || error.retry() == types::Retry::Permanent => {
                        drop(reply.send(Err(error)));
                        // What could not be attached is taken away again.
                        self.part(&id);
                        self.leaving.push((id, None));
                    }
                    Err(_) => self.wait_on(waiter.until, WaiterReply::Attached(id, reply)),
                },
            }
        }
    }

    fn wait_on(&mut self, until: tokio::time::Instant, reply: WaiterReply) {
        self.waiting.push(Waiter { until, reply });
    }

    /// Says whether a container may start, or what is missing yet.
    fn attached(&mut self, id: &str, done: &Result<(), String>) -> Result<Sandbox, Error> {
        let Some(sandbox) = self.here.sandboxes.get(id) else {
            return Err(Error::Detached(id.to_owned()));
        };
        let ports = sandbox.host_ports.iter();
        let taken = ports.filter_map(|(protocol, published, _)| {
            self.outcome.ports.get(&(*protocol, *published))
        });
        if let Some(reason) = taken.into_iter().next() {
            return Err(Error::PortTaken(reason.clone()));
        }
        if let Some(reason) = self.outcome.sandboxes.get(id) {
            return Err(Error::Kernel(reason.clone()));
        }
        if self.outcome.node.is_some() || !self.is_saved {
            return Err(Error::Kernel(done.clone().err().unwrap_or_default()));
        }
        if sandbox.dns_port == 0 {
            let reason = self.names.held().and_then(|mut held| held.failed.remove(id));
            let reason = reason.unwrap_or_else(|| "the name server is not there".to_owned());
            let source = std::io::Error::other(reason);
            return Err(Error::Resolver { path: self.netns(id), source });
        }
        Ok(sandbox.clone())
    }

    async fn remove(&mut self, id: &str) -> Result<(), Error> {
        let path = self.netns(id);
        let removed = timeout(NAMESPACE, self.namespaces.remove(&path)).await;
        flatten(removed).map_err(|source| Error::Namespace { path, source })
    }
}
