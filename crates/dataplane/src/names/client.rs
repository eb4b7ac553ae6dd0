//! The daemon's end: connects, starts the process where it is missing, tells it the whole state
//! and hears what it holds.

use super::change::{self, Change, Order};
use super::frame::{read, write};
use super::process::Hello;
use super::{Held, State};
use std::convert::Infallible;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

/// How long the server may take to say hello.
const HELLO: Duration = Duration::from_secs(2);
/// How often it may drop a connection before it says hello.
const DROPPED_MAX: usize = 8;
/// How long it may take to read what it is told.
const WRITE: Duration = Duration::from_secs(5);
/// How long starting it may take.
const START: Duration = Duration::from_secs(10);
/// After a failure that follows another, without a working server between them; doubles.
const PAUSE_FIRST: Duration = Duration::from_millis(50);
const PAUSE_LONGEST: Duration = Duration::from_secs(5);

/// How the name server's process is started.
pub trait Process: Send + 'static {
    /// Starts it, and ends the one before if it is still there: it does not answer, or is of
    /// another version. Returns when the new one listens.
    fn renew(&mut self) -> impl Future<Output = io::Result<()>> + Send;
}

pub(super) struct Client<P> {
    socket: PathBuf,
    process: P,
    token: CancellationToken,
    pause: Duration,
}

impl<P: Process> Client<P> {
    pub(super) fn new(socket: PathBuf, process: P, token: CancellationToken) -> Self {
        Self { socket, process, token, pause: Duration::ZERO }
    }

    pub(super) async fn run(
        mut self,
        orders: watch::Receiver<Option<State>>,
        report: watch::Sender<Held>,
    ) -> Result<(), Infallible> {
        let token = self.token.clone();
        // What is half said when the daemon ends does no harm: the server goes on with what it has.
        token.run_until_cancelled(self.keep(orders, report)).await;
        Ok(())
    }

    /// Stays connected for ever.
    async fn keep(&mut self, orders: watch::Receiver<Option<State>>, report: watch::Sender<Held>) {
        loop {
            sleep(self.pause).await;
            self.pause = (self.pause * 2).clamp(PAUSE_FIRST, PAUSE_LONGEST);
            let Some(stream) = self.reach().await else { continue };
            let ended = converse(stream, &orders, &report, &mut self.pause).await;
            let reason = ended.err().map(|error| error.to_string());
            tracing::warn!(reason, "lost the name server");
        }
    }

    /// Connects, after starting the process where that is of no use.
    async fn reach(&mut self) -> Option<UnixStream> {
        for _ in 0..DROPPED_MAX {
            match connect(&self.socket).await {
                Ok(stream) => return Some(stream),
                // It lives, and somebody else has connected meanwhile.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    tracing::info!(reason = %error, "starting the name server");
                    break;
                }
            }
        }
        let renewed = timeout(START, self.process.renew()).await;
        if let Err(error) = renewed.unwrap_or_else(|late| Err(late.into())) {
            tracing::error!(%error, "cannot start the name server, trying again");
            return None;
        }
        match connect(&self.socket).await {
            Ok(stream) => Some(stream),
            Err(error) => {
                tracing::error!(%error, "cannot reach the name server, trying again");
                None
            }
        }
    }
}

async fn connect(socket: &Path) -> io::Result<UnixStream> {
    let mut stream = UnixStream::connect(socket).await?;
    match timeout(HELLO, read::<Hello>(&mut stream)).await?? {
        Some(hello) if hello == Hello::own() => Ok(stream),
        Some(hello) => Err(io::Error::other(format!("it is of another version: {hello:?}"))),
        None => Err(io::ErrorKind::ConnectionAborted.into()),
    }
}

async fn converse(
    stream: UnixStream,
    orders: &watch::Receiver<Option<State>>,
    report: &watch::Sender<Held>,
    pause: &mut Duration,
) -> io::Result<()> {
    let (reader, writer) = stream.into_split();
    tokio::select! {
        ended = tell(writer, orders.clone()) => ended,
        ended = hear(reader, orders, report, pause) => ended,
    }
}

/// Tells the newest state, whole at first, and what differs after each change.
async fn tell(
    mut writer: OwnedWriteHalf,
    mut orders: watch::Receiver<Option<State>>,
) -> io::Result<()> {
    let mut told: Option<State> = None;
    loop {
        let state = orders.borrow_and_update().clone();
        if let Some(state) = state {
            let order = match &told {
                None => Order::Whole(change::told(&state)),
                Some(told) => Order::Change(Change::between(told, &state)),
            };
            timeout(WRITE, write(&mut writer, &order)).await??;
            told = Some(state);
        }
        if orders.changed().await.is_err() {
            // The daemon is about to end; so is this loop.
            std::future::pending::<()>().await;
        }
    }
}

async fn hear(
    mut reader: OwnedReadHalf,
    orders: &watch::Receiver<Option<State>>,
    report: &watch::Sender<Held>,
    pause: &mut Duration,
) -> io::Result<()> {
    while let Some(held) = read::<Held>(&mut reader).await? {
        if orders.borrow().as_ref().is_some_and(|state| state.stamp == held.stamp) {
            // It works, so its next end is news.
            *pause = Duration::ZERO;
        }
        report.send_replace(held);
    }
    Ok(())
}
