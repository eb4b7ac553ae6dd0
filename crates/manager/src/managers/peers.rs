//! Connections to other managers, found by their numbers in the log's membership.
//!
//! The log's own messages have connections of their own: what users ask never holds up a heartbeat.

use super::pool::Pool;
use crate::clock::Uptime;
use crate::find;
use ca::Identity;
use futures_util::FutureExt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use store::View;
use tokio::sync::watch;
use tonic::transport::Channel;
use types::{Fault, FaultKind};
use wire::{ManagersClient, RaftMessage, fault_of, managers_client};

/// For another manager's machine to answer the log's first packet. Where it was cut off for a moment, it
/// is found again soon after: the kernel would send that packet again only after a second.
const REACH_LIMIT: Duration = Duration::from_millis(300);

/// The other managers. Clones are the same.
#[derive(Clone, Debug)]
pub struct Peers(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    identity: Arc<Identity>,
    own: u64,
    /// Where they are.
    views: OnceLock<watch::Receiver<View>>,
    log: Pool<Channel>,
    users: Pool<Channel>,
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

    async fn client(
        &self,
        pool: &Pool<Channel>,
        to: u64,
        reach: Duration,
    ) -> Result<ManagersClient<Channel>, Fault> {
        let with = (self.address(to)?, *self.0.identity.changes().borrow());
        let config = ca::tls::client_config(&self.0.identity)?;
        let address = with.0.clone();
        let open = || async move { ca::connect_within(&address, config, reach).await }.boxed();
        pool.get(to, with, open).await.map(managers_client)
    }

    /// A client for what users ask. That it could not be made says that nothing was asked.
    pub(super) async fn leader(&self, to: u64) -> Result<ManagersClient<Channel>, Fault> {
        self.client(&self.0.users, to, ca::REACH_LIMIT).await
    }

    /// A call to this manager did not come back, or broke off.
    pub(super) fn lost(&self, to: u64) {
        self.0.users.forget(to);
    }
}

impl raft::Peers for Peers {
    async fn call(&self, to: u64, body: Vec<u8>, limit: Duration) -> Result<Vec<u8>, Fault> {
        let call = async {
            let mut client = self.client(&self.0.log, to, REACH_LIMIT).await?;
            let generation = self.generation();
            let message = RaftMessage { from: self.0.own, generation, body };
            client.raft(message).await.map_err(fault_of)
        };
        match tokio::time::timeout(limit, call).await {
            Ok(Ok(answer)) => {
                self.0.log.answered(to, Uptime::now());
                Ok(answer.into_inner().body)
            }
            Ok(Err(fault)) => {
                if fault.kind == FaultKind::Unavailable {
                    self.0.log.forget(to);
                }
                Err(fault)
            }
            Err(_late) => {
                self.0.log.late(to, Uptime::now());
                Err(Fault::unavailable(format!("manager {to} does not answer")))
            }
        }
    }
}
