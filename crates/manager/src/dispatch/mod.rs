//! The dispatcher: sessions with nodes, signs of life, what they should have, what they report.
//!
//! [`Dispatcher`] decides all of it and does nothing; start there. The loop around it (`run`) owns
//! channels, clocks and connections; the RPC handlers (`rpc`) send it requests and write what nodes
//! report ([`report`]).

mod command;
mod dispatcher;
mod observation;
pub mod report;
mod rpc;
mod run;
mod sessions;
mod stream;
mod subscriptions;

pub use command::{Command, LogOutput, Now, Output, SessionId, SubscriptionId};
pub use dispatcher::Dispatcher;
pub use observation::Observation;
pub(crate) use rpc::Rpc;
pub(crate) use run::Ask;

use crate::logs::Sinks;
use raft::Sequencer;
use scope::Scope;
use tokio::sync::mpsc;

/// Requests that wait for the loop. Handlers wait when it is full, and nodes with them.
const REQUESTS: usize = 256;

/// Starts the dispatcher of a term, which begins with no session.
pub(crate) fn begin(sinks: Sinks, sequencer: Sequencer, scope: &mut Scope) -> mpsc::Sender<Ask> {
    let (requests, inbox) = mpsc::channel(REQUESTS);
    sinks.clear();
    let dispatch = run::Loop::new(sequencer, sinks);
    scope.spawn("dispatch", dispatch.run(inbox, scope.token()));
    requests
}
