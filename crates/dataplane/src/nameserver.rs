//! The name server of a node: one [`Server`] for each container, as the wanted state says.
//!
//! It follows the newest state and passes over older ones. What cannot be opened is tried again;
//! while nobody tells it anything, it goes on with what it was told last.

use crate::names::{Held, Stamp, State};
use crate::port::Sockets;
use crate::resolver::{self, Server};
use crate::upstream::Upstreams;
use discovery::{Sandbox, Zone, zones};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;

/// How long opening sockets in one namespace may take.
const OPEN: Duration = Duration::from_secs(5);
/// What could not be opened is tried again this often.
const AGAIN: Duration = Duration::from_millis(500);
/// Before a server that has ended is opened anew: one that cannot live does not keep us busy.
const ENDED: Duration = Duration::from_millis(50);
/// The upstream servers are read anew this often, and each container's server is looked after.
const REPAIR: Duration = Duration::from_secs(30);

pub(crate) struct NameServer<S> {
    upstreams: Arc<Upstreams<S>>,
    token: CancellationToken,
    /// A server has ended of itself.
    ended: Arc<Notify>,
    /// By container id.
    servers: BTreeMap<String, Serving>,
    /// Why the others that are wanted are not there.
    failed: BTreeMap<String, String>,
}

struct Serving {
    server: Server,
    netns: String,
    port: u16,
    /// The state that asked for it first.
    since: Stamp,
}

impl Serving {
    /// Says whether it is of no use for this sandbox.
    fn is_over(&self, sandbox: &Sandbox, stamp: Stamp) -> bool {
        let is_of_former_times = sandbox.dns_port == 0 && self.since != stamp;
        is_of_former_times || self.netns != sandbox.netns || self.server.has_ended()
    }
}

impl<S: Sockets> NameServer<S> {
    pub(crate) async fn open(sockets: S, resolv_conf: &Path, token: CancellationToken) -> Self {
        let upstreams = Arc::new(Upstreams::open(sockets, resolv_conf).await);
        Self {
            upstreams,
            token,
            ended: Arc::default(),
            servers: BTreeMap::new(),
            failed: BTreeMap::new(),
        }
    }

    pub(crate) async fn run(
        mut self,
        mut wanted: watch::Receiver<Option<State>>,
        held: watch::Sender<Held>,
    ) -> Result<(), Infallible> {
        let mut repair = interval(REPAIR);
        repair.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (token, ended) = (self.token.clone(), Arc::clone(&self.ended));
        loop {
            let state = wanted.borrow_and_update().clone();
            if let Some(state) = &state {
                self.follow(state).await;
                held.send_if_modified(|held| {
                    let now = self.held(state);
                    let changed = *held != now;
                    *held = now;
                    changed
                });
            }
            tokio::select! {
                () = token.cancelled() => break,
                Ok(()) = wanted.changed() => {}
                () = sleep(AGAIN), if !self.failed.is_empty() => {}
                // Whatever else comes first looks after all servers as well.
                () = async { ended.notified().await; sleep(ENDED).await } => {}
                _ = repair.tick() => self.upstreams.reload().await,
            }
        }
        close(std::mem::take(&mut self.servers).into_values()).await;
        Ok(())
    }

    fn held(&self, state: &State) -> Held {
        let ports = self.servers.iter().map(|(id, serving)| (id.clone(), serving.port));
        Held { stamp: state.stamp, ports: ports.collect(), failed: self.failed.clone() }
    }

    /// Closes, renews and opens what differs.
    async fn follow(&mut self, state: &State) {
        let sandboxes = &state.here.sandboxes;
        let over = |id: &String, serving: &mut Serving| {
            sandboxes.get(id).is_none_or(|sandbox| serving.is_over(sandbox, state.stamp))
        };
        let over: Vec<Serving> =
            self.servers.extract_if(.., over).map(|(_, serving)| serving).collect();
        close(over.into_iter()).await;
        self.failed.clear();
        let mut missing = Vec::new();
        for (id, zone) in zones(&state.known, &state.here) {
            match self.servers.get(&id) {
                Some(serving) => serving.server.publish(zone),
                None => missing.push((id, zone)),
            }
        }
        // Those that are there go first: a namespace may keep us waiting.
        for (id, zone) in missing {
            let Some(sandbox) = sandboxes.get(&id) else { continue };
            match self.serve(sandbox, zone, state.stamp).await {
                Ok(serving) => {
                    self.servers.insert(id, serving);
                }
                Err(error) => {
                    tracing::warn!(container = id, %error, "cannot open its name server");
                    self.failed.insert(id, error.to_string());
                }
            }
        }
    }

    /// Opens a container's sockets and answers on them.
    async fn serve(&self, sandbox: &Sandbox, zone: Zone, since: Stamp) -> io::Result<Serving> {
        let netns = Path::new(&sandbox.netns);
        let sockets = resolver::open(self.upstreams.sockets(), netns, sandbox.dns_port);
        let sockets = timeout(OPEN, sockets).await.unwrap_or_else(|late| Err(late.into()))?;
        let port = sockets.port;
        let (upstreams, ended) = (&self.upstreams, &self.ended);
        let server = Server::start((sockets, netns), zone, upstreams, ended, &self.token)?;
        Ok(Serving { server, netns: sandbox.netns.clone(), port, since })
    }
}

/// Ends servers side by side; then every socket is closed.
async fn close(servers: impl Iterator<Item = Serving>) {
    let closing: JoinSet<()> = servers.map(|serving| serving.server.close()).collect();
    closing.join_all().await;
}
