//! The server of a manager: who may connect, and how much of what they may ask.
//!
//! Strangers (whoever shows no certificate) reach `membership` alone, in small windows. Nodes reach
//! the dispatcher, managers also each other. What these calls come to is decided in
//! [`crate::membership`], [`crate::managers`] and [`crate::dispatch`].

mod framing;
mod parting;
mod quota;
mod refused;

use crate::Error;
use crate::callers::known;
use crate::dispatch::Rpc;
use crate::managers::{self, Leading, managers_only};
use crate::membership;
use ca::{Arrivals, Identity, Refusals};
use quota::{Limited, Quotas};
use refused::Counted;
use scope::Scope;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Server;
use tonic::transport::server::Router;
use wire::{dispatcher_server, managers_server, membership_server};

/// Calls of one connection at a time, of a node and of a stranger.
const CALLS: u32 = 128;
const CALLS_OF_STRANGERS: u32 = 4;
/// What a node may send in one call before it is read, and on its connection: logs that no client
/// reads must not hold up its heartbeats. What is read is bounded by its [`Quotas`].
const CALL_WINDOW: u32 = 64 << 10;
const CONNECTION_WINDOW: u32 = 16 << 20;
/// What a stranger may send before it is read: the wish for a certificate.
const WINDOW_OF_STRANGERS: u32 = 64 << 10;
/// Bytes of the headers of a call.
const HEADERS: u32 = 16 << 10;
/// For open calls to end when the manager stops.
const FAREWELL: Duration = Duration::from_secs(2);

/// The three services.
pub(crate) struct Services {
    pub(crate) membership: membership::Service,
    pub(crate) managers: managers::Service,
    pub(crate) dispatcher: Rpc,
}

/// Starts to serve nodes, managers and strangers in `scope`; it counts what it refuses.
pub(crate) fn start(
    services: Services,
    leading: Leading,
    (listener, identity): (TcpListener, &Identity),
    scope: &mut Scope,
) -> Result<Refusals, Error> {
    let Services { membership, managers, dispatcher } = services;
    let views = leading.log.watch();
    let accepting = ca::accept(listener, identity, scope.token());
    let (acceptor, accepted) = accepting.map_err(Error::Identity)?;
    let refusals = accepted.refusals;
    let strangers = server()
        .max_concurrent_streams(Some(CALLS_OF_STRANGERS))
        .initial_stream_window_size(Some(WINDOW_OF_STRANGERS))
        .initial_connection_window_size(Some(WINDOW_OF_STRANGERS))
        .add_service(counted(membership_server(membership.clone()), &refusals))
        .add_service(counted(
            InterceptedService::new(dispatcher_server(dispatcher.clone()), known),
            &refusals,
        ));
    let quotas = Quotas::default();
    let membership = Limited {
        service: membership_server(membership),
        quotas: quotas.clone(),
        views: views.clone(),
    };
    let dispatcher = Limited { service: dispatcher_server(dispatcher), quotas, views };
    let nodes = server()
        .max_concurrent_streams(Some(CALLS))
        .initial_stream_window_size(Some(CALL_WINDOW))
        .initial_connection_window_size(Some(CONNECTION_WINDOW))
        .add_service(counted(membership, &refusals))
        .add_service(counted(
            InterceptedService::new(managers_server(managers), managers_only),
            &refusals,
        ))
        .add_service(counted(InterceptedService::new(dispatcher, known), &refusals));
    scope.spawn("acceptor", acceptor);
    scope.spawn("connections", parting::run(accepted.connections, leading, scope.token()));
    scope.spawn("strangers", serve(strangers, accepted.strangers, scope.token()));
    scope.spawn("nodes", serve(nodes, accepted.nodes, scope.token()));
    Ok(refusals)
}

fn counted<S>(service: S, refusals: &Refusals) -> Counted<S> {
    Counted { service, refusals: refusals.clone() }
}

fn server() -> Server {
    Server::builder()
        .http2_keepalive_interval(Some(Duration::from_secs(10)))
        .http2_keepalive_timeout(Some(Duration::from_secs(10)))
        .http2_max_header_list_size(Some(HEADERS))
}

/// Serves those who arrive until the token is cancelled.
async fn serve(
    server: Router,
    arrivals: Arrivals,
    token: CancellationToken,
) -> Result<(), tonic::transport::Error> {
    let serving = server.serve_with_incoming_shutdown(arrivals, token.clone().cancelled_owned());
    let late = async {
        token.cancelled().await;
        tokio::time::sleep(FAREWELL).await;
    };
    tokio::select! {
        ended = serving => ended,
        () = late => Ok(()),
    }
}
