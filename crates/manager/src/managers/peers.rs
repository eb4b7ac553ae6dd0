//! Connections to other managers, found by their numbers in the log's membership.
//!
//! The log's own messages have connections of their own: what users ask never holds up a heartbeat.

use crate::find;
use ca::Identity;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;
use store::View;
use tokio::sync::watch;
use tonic::transport::Channel;
use types::{Fault, FaultKind};
use wire::{ManagersClient, RaftMessage, fault_of, managers_client};

/// The other managers. Clones are the same.
#[derive(Clone, Debug)]
pub struct Peers(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    identity: Arc<Identity>,
    own: u64,
    /// Where they are.
    views: OnceLock<watch::Receiver<View>>,
    log: Pool,
    users: Pool,
}

/// An open connection to each manager.
#[derive(Debug, Default)]
struct Pool(Mutex<BTreeMap<u64, Open>>);

#[derive(Debug)]
struct Open {
    /// Where it leads, and which of this manager's certificates it shows.
    with: (String, u64),
    channel: Channel,
}

impl Pool {
    fn get(&self, to: u64, with: &(String, u64)) -> Option<Channel> {
        let pool = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        pool.get(&to).filter(|open| open.with == *with).map(|open| open.channel.clone())
    }

    /// What is under way on the one before ends there.
    fn put(&self, to: u64, with: (String, u64), channel: Channel) {
        let open = Open { with, channel };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(to, open);
    }

    /// The next call opens a new one: on one that hangs, calls would hang with it.
    fn forget(&self, to: u64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&to);
    }
}

impl Peers {
    /// Connections of the manager that is number `own`. Nobody is found before [`Self::follow`].
    pub fn new(identity: Arc<Identity>, own: u64) -> Self {
        let (views, log, users) = (OnceLock::new(), Pool::default(), Pool::default());
        Self(Arc::new(Inner { identity, own, views, log, users }))
    }

    /// Finds managers where the newest view says they are.
    pub fn follow(&self, views: watch::Receiver<View>) {
        // Only the first time: it is the same log.
        self.0.views.set(views).ok();
    }

    fn address(&self, to: u64) -> Result<String, Fault> {
        let unknown = || Fault::unavailable(format!("the address of manager {to} is not known"));
        let view = self.0.views.get().ok_or_else(unknown)?.borrow().clone();
        let node = find::manager(&view, to).ok_or_else(unknown)?;
        node.manager.as_ref().map(|manager| manager.address.clone()).ok_or_else(unknown)
    }

    fn generation(&self) -> u64 {
        let of = |view: &View| view.cluster().map_or(0, |cluster| cluster.generation);
        self.0.views.get().map_or(0, |views| of(&views.borrow()))
    }

    async fn client(&self, pool: &Pool, to: u64) -> Result<ManagersClient<Channel>, Fault> {
        let with = (self.address(to)?, *self.0.identity.changes().borrow());
        if let Some(channel) = pool.get(to, &with) {
            return Ok(managers_client(channel));
        }
        let config = ca::tls::client_config(&self.0.identity)?;
        let channel = ca::connect(&with.0, config).await?;
        pool.put(to, with, channel.clone());
        Ok(managers_client(channel))
    }

    /// A client for what users ask. That it could not be made says that nothing was asked.
    pub(super) async fn leader(&self, to: u64) -> Result<ManagersClient<Channel>, Fault> {
        self.client(&self.0.users, to).await
    }

    /// A call to this manager did not come back, or broke off.
    pub(super) fn lost(&self, to: u64) {
        self.0.users.forget(to);
    }
}

impl raft::Peers for Peers {
    async fn call(&self, to: u64, body: Vec<u8>, limit: Duration) -> Result<Vec<u8>, Fault> {
        let call = async {
            let mut client = self.client(&self.0.log, to).await?;
            let generation = self.generation();
            let message = RaftMessage { from: self.0.own, generation, body };
            client.raft(message).await.map_err(fault_of)
        };
        let late = |_| Fault::unavailable(format!("manager {to} does not answer"));
        let answer = tokio::time::timeout(limit, call).await.map_err(late);
        match answer.and_then(|answer| answer) {
            Ok(answer) => Ok(answer.into_inner().body),
            Err(fault) => {
                if fault.kind == FaultKind::Unavailable {
                    self.0.log.forget(to);
                }
                Err(fault)
            }
        }
    }
}
