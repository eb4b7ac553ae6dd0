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
mod parting;
mod quota;
mod refused;
pub mod report;
mod rpc;
mod run;
mod sessions;
mod stream;
mod subscriptions;

pub(crate) use admission::caller;
pub use command::{Command, LogOutput, Now, Output, SessionId, SubscriptionId};
pub use dispatcher::Dispatcher;
pub use observation::Observation;
pub(crate) use rpc::Served;
pub(crate) use run::Request;

use crate::Error;
use crate::logs::Sinks;
use ca::{Identity, Refusals};
use raft::Sequencer;
use scope::Scope;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

/// Requests that wait for the loop. Handlers wait when it is full, and nodes with them.
const REQUESTS: usize = 256;

/// What each term of this manager's is begun with.
#[derive(Clone, Debug)]
pub(crate) struct Term {
    parts: Sinks,
}

/// Starts the server that nodes and other managers talk to; it counts what it refuses.
pub(crate) fn serve(
    served: Served,
    (listener, identity): (TcpListener, &Identity),
    scope: &mut Scope,
) -> Result<(Term, Refusals), Error> {
    let parts = Sinks::default();
    let refusals = rpc::start(served, parts.clone(), (listener, identity), scope)?;
    Ok((Term { parts }, refusals))
}

/// Starts the dispatcher of a term, which begins with no session.
pub(crate) fn begin(term: Term, sequencer: Sequencer, scope: &mut Scope) -> mpsc::Sender<Request> {
    let (requests, inbox) = mpsc::channel(REQUESTS);
    term.parts.clear();
    let dispatch = run::Loop::new(sequencer, term.parts);
    scope.spawn("dispatch", dispatch.run(inbox, scope.token()));
    requests
}
