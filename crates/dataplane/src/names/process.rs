//! The name server's own process: one daemon at a time tells it what to hold.

use super::change::Order;
use super::frame::{read, write};
use super::{Held, State};
use crate::nameserver::NameServer;
use crate::port::Sockets;
use scope::Scope;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::Path;
use std::time::Duration;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

/// Changes with every change of what is said on the socket.
pub(super) const PROTOCOL: u32 = 4;
/// A pause after the machine could not accept a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long a daemon may take to read what it is told.
const WRITE: Duration = Duration::from_secs(5);

/// The server's first words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hello {
    pub(crate) protocol: u32,
    pub(crate) version: String,
}

impl Hello {
    /// What this program says.
    pub(super) fn own() -> Self {
        Self { protocol: PROTOCOL, version: env!("CARGO_PKG_VERSION").to_owned() }
    }
}

/// Serves the containers of this node until `scope` is cancelled, as the daemon that connected last
/// wants it; while none is connected, as the last one wanted it. Questions that are not ours go
/// upstream from the namespace of this process.
pub async fn serve<S: Sockets>(
    listener: UnixListener,
    sockets: S,
    resolv_conf: &Path,
    scope: &mut Scope,
) {
    let (wanted, orders) = watch::channel(None);
    let (report, held) = watch::channel(Held::default());
    let server = NameServer::open(sockets, resolv_conf, scope.token()).await;
    scope.spawn("name server", server.run(orders, report));
    scope.spawn("daemons", listen(listener, wanted, held, scope.token()));
}

/// Lets the daemon that came last speak, and no other.
async fn listen(
    listener: UnixListener,
    wanted: watch::Sender<Option<State>>,
    held: watch::Receiver<Held>,
    token: CancellationToken,
) -> io::Result<()> {
    let mut daemon = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = token.cancelled() => return Ok(()),
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    daemon.shutdown().await;
                    daemon.spawn(converse(stream, wanted.clone(), held.clone()));
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a daemon");
                    sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(ended) = daemon.join_next() => {
                if let Ok(Err(error)) = ended {
                    tracing::warn!(%error, "the daemon's connection failed");
                }
            }
        }
    }
}

async fn converse(
    stream: UnixStream,
    wanted: watch::Sender<Option<State>>,
    held: watch::Receiver<Held>,
) -> io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    timeout(WRITE, write(&mut writer, &Hello::own())).await??;
    tokio::select! {
        ended = obey(reader, wanted) => ended,
        ended = tell(writer, held) => ended,
    }
}

async fn obey(mut reader: OwnedReadHalf, wanted: watch::Sender<Option<State>>) -> io::Result<()> {
    let mut is_begun = false;
    while let Some(order) = read::<Order>(&mut reader).await? {
        match order {
            Order::Whole(state) => drop(wanted.send_replace(Some(state))),
            // To a state of this connection, not to what another daemon said.
            Order::Change(change) if is_begun => wanted.send_modify(|state| {
                if let Some(state) = state {
                    change.apply(state);
                }
            }),
            Order::Change(_) => return Err(io::Error::other("a change before the whole state")),
        }
        is_begun = true;
    }
    Ok(())
}

async fn tell(mut writer: OwnedWriteHalf, mut held: watch::Receiver<Held>) -> io::Result<()> {
    loop {
        let now = held.borrow_and_update().clone();
        timeout(WRITE, write(&mut writer, &now)).await??;
        if held.changed().await.is_err() {
            return Ok(());
        }
    }
}
