//! The dispatcher: sessions with nodes, signs of life, what they should have, what they report.
//!
//! [`Dispatcher`] decides all of it and does nothing; start there. The loop around it (`run`) owns
//! channels, clocks and connections; the RPC handlers (`rpc`) send it requests and write what nodes
//! report ([`report`]).

pub mod admission;
mod command;
mod dispatcher;
pub(crate) mod limits;
mod observation;
mod quota;
pub mod report;
mod rpc;
mod run;
mod sessions;
mod stream;
mod subscriptions;

pub(crate) use admission::authenticated;
pub use command::{Command, LogOutput, Now, Output, SessionId, SubscriptionId};
pub use dispatcher::Dispatcher;
pub use observation::Observation;
pub(crate) use run::Request;

use crate::logs::Sinks;
use crate::{Config, Error};
use ca::Identity;
use raft::Sequencer;
use scope::Scope;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

/// Requests that wait for the loop. Handlers wait when it is full, and nodes with them.
const REQUESTS: usize = 256;

/// Starts the loop and the server that nodes talk to.
pub(crate) fn start(
    config: Config,
    sequencer: Sequencer,
    (listener, identity): (TcpListener, Arc<Identity>),
    scope: &mut Scope,
) -> Result<mpsc::Sender<Request>, Error> {
    let (requests, inbox) = mpsc::channel(REQUESTS);
    let parts = Sinks::default();
    let rpc = rpc::Rpc::new(sequencer.clone(), requests.clone(), parts.clone());
    let connections = rpc::start(rpc, listener, &identity, scope)?;
    let dispatch = run::Loop::new(config.managers, sequencer, parts, connections);
    scope.spawn("dispatch", dispatch.run(inbox, scope.token()));
    Ok(requests)
}
