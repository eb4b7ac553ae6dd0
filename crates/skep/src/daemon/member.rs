//! A node as a member of a cluster: the agent, and on the manager the cluster half.

use super::Standalone;
use super::facts;
use super::lock;
use super::state::{Files, State};
use super::vault::Vault;
use agent::Agent;
use anyhow::{Context, Result};
use ca::{Authority, Identity, Peer, UnlockKey};
use engine_api::{About, Init};
use manager::{First, Manager, Peers, Survivor};
use raft::{Sequencer, Start};
use scope::{Scope, ScopeError};
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use store::View;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use types::{
    ClusterId, Fault, IdSource, ManagerStatus, NodeDescription, NodeId, NodeRole, RootCa, Timestamp,
};

/// After the certificate could not be written.
const SAVE_PAUSE: Duration = Duration::from_mins(1);

/// For another manager to lead before this one stops.
const HAND_OVER_MAX: Duration = Duration::from_secs(3);

/// What a member runs: the agent, and on a manager the cluster half.
pub(super) struct RunningMember {
    scope: Scope,
    /// What a manager runs besides. It outlives the daemon's token, until another manager leads.
    log: Scope,
    pub(super) agent: Agent,
    pub(super) manager: Option<Manager>,
    pub(super) identity: Arc<Identity>,
}

/// The cluster's log, and the way to other managers.
type Log = (Sequencer, Peers);

/// Starts this node as a member of a cluster.
#[derive(Clone)]
pub(super) struct Launcher {
    pub(super) files: Files,
    pub(super) vault: Vault,
    pub(super) about: About,
    pub(super) standalone: Standalone,
    /// Cancelled when the daemon ends.
    pub(super) token: CancellationToken,
}

/// A new cluster's first manager signs itself its certificate.
const NO_KEY: &str = "a new cluster needs the key of its root: give it, or rotate to a root whose key an \
     external CA has once the cluster is there";

/// Random ids.
struct Random;

impl IdSource for Random {
    fn next_bits(&mut self) -> u128 {
        rand::random()
    }
}

impl Launcher {
    /// Makes a new cluster with this node as its manager, until it runs.
    pub(super) async fn found(
        &self,
        init: Init,
        ((address, port), data_path_address): ((IpAddr, u16), Option<IpAddr>),
        listen: SocketAddr,
    ) -> Result<(State, RunningMember)> {
        let (cluster, node) = (ClusterId::draw(&mut Random), NodeId::draw(&mut Random));
        let mut spec = init.spec;
        let root_ca = match &init.root {
            Some(root) => ca::given(&root.certificate, &root.key, now())?,
            None => Authority::create(now())?,
        };
        if root_ca.key.is_empty() {
            return Err(Fault::invalid(NO_KEY).into());
        }
        manager::pin_external_cas(&mut spec, &root_ca)?;
        let peer = Peer { node: node.clone(), role: NodeRole::Manager, cluster: cluster.clone() };
        let roots = (&root_ca, root_ca.certificate.as_str());
        let identity = identity(roots, &peer, spec.certificate_validity)?;
        self.vault.begin(&identity).await?;
        let identity = Arc::new(identity);
        let state = State {
            address,
            data_path_address,
            listen,
            managers: vec![SocketAddr::new(address, port).to_string()],
            data_path_port: init.data_path_port,
            manager: true,
            raft_id: raft::FIRST_MEMBER,
            port,
            alone: false,
        };
        let mut scope = Scope::new();
        let log = self.open_log(&state, (&identity, Start::Found), &mut scope).await?;
        let first = First {
            cluster,
            root_ca,
            spec,
            address_pools: init.address_pools,
            subnet_prefix: init.subnet_prefix,
            data_path_port: init.data_path_port,
            node,
            description: NodeDescription {
                trust_root: identity.roots(),
                issuer: identity.issuer(),
                ..facts::description(&self.about)
            },
            address,
            manager_address: state.manager_address(),
            data_path_address,
            availability: init.availability,
        };
        manager::bootstrap(&log.0, first).await?;
        // Whoever is told the unlock key finds it to be needed.
        let key = log.0.view().cluster().and_then(|it| UnlockKey::parse(&it.unlock_key.0));
        self.vault.lock_by(key, &identity, &log.0).await?;
        let running = self.start(&state, identity, Some(log), scope).await?;
        // From here on a restart comes back as this member.
        self.files.save(&state).await?;
        Ok((state, running))
    }

    /// Makes this node the only manager of a cluster that was saved, until it runs.
    pub(super) async fn restore(
        &self,
        view: View,
        ((address, port), data_path_address): ((IpAddr, u16), Option<IpAddr>),
        listen: SocketAddr,
    ) -> Result<(State, RunningMember)> {
        let cluster = Arc::clone(view.cluster().context("there is no cluster in it")?);
        let node = NodeId::draw(&mut Random);
        let peer = Peer { node, role: NodeRole::Manager, cluster: cluster.id.clone() };
        let roots = cluster.roots();
        let identity = if cluster.root_ca.key.is_empty() {
            // Who has it is asked by a node that has no certificate yet.
            let request = Identity::generate()?;
            let signed = ca::sign(&cluster, request.csr(), &peer, None, now()).await;
            request.accept(&signed.map_err(Fault::from)?, &roots)?
        } else {
            let validity = cluster.spec.certificate_validity;
            identity((&cluster.root_ca, &roots), &peer, validity)?
        };
        self.vault.begin(&identity).await?;
        let mut state = State {
            address,
            data_path_address,
            listen,
            managers: vec![SocketAddr::new(address, port).to_string()],
            data_path_port: cluster.data_path_port,
            manager: true,
            // Another member than all before.
            raft_id: cluster.last_raft_id.max(raft::FIRST_MEMBER) + 1,
            port,
            alone: true,
        };
        let keys = self.vault.log_keys(&identity).await?;
        let member = state.raft_id();
        let config = raft::Config { member, ..raft::Config::new(self.files.raft(), keys) };
        raft::restore(&config, view).await.context("cannot write the cluster's log")?;
        // From here on a restart comes back as this member.
        self.files.save(&state).await?;
        let running = self.resume(&mut state).await?;
        Ok((state, running))
    }

    /// Starts a member that was one before.
    pub(super) async fn resume(&self, state: &mut State) -> Result<RunningMember> {
        let identity = self.vault.load().await?;
        let missing = "the node's certificate is missing: leave the cluster and join again";
        let identity = Arc::new(identity.context(missing)?);
        let mut scope = Scope::new();
        let log = if !state.manager {
            // What a manager that was demoted has left.
            self.files.remove_log().await?;
            self.vault.forget_log(&identity).await?;
            None
        } else if state.alone {
            let log = self.open_log(state, (&identity, Start::Alone), &mut scope).await?;
            manager::go_on_alone(&log.0, self.survivor(state, &identity)).await?;
            // Others may come from here on, and are not to be forgotten at the next start.
            self.files.save(&State { alone: false, ..state.clone() }).await?;
            state.alone = false;
            Some(log)
        } else {
            Some(self.open_log(state, (&identity, Start::Resume), &mut scope).await?)
        };
        self.start(state, identity, log, scope).await
    }

    /// What this node is where it is the only manager.
    fn survivor(&self, state: &State, identity: &Identity) -> Survivor {
        Survivor {
            node: identity.node_id(),
            manager: ManagerStatus { raft_id: state.raft_id(), address: state.manager_address() },
            description: NodeDescription {
                trust_root: identity.roots(),
                issuer: identity.issuer(),
                ..facts::description(&self.about)
            },
            address: state.address,
            data_path_address: state.data_path_address,
        }
    }

    /// Starts a member that has just got its certificate.
    pub(super) async fn begin(&self, state: &State, identity: Identity) -> Result<RunningMember> {
        self.vault.begin(&identity).await?;
        let running = self.start(state, Arc::new(identity), None, Scope::new()).await?;
        self.files.save(state).await?;
        Ok(running)
    }

    /// A member becomes a manager as well, with the number that it got in the log's membership: its
    /// log is filled by the manager that leads.
    pub(super) async fn promote(&self, state: &State, running: &mut RunningMember) -> Result<()> {
        // Nothing of a former membership counts.
        let identity = Arc::clone(&running.identity);
        self.files.remove_log().await?;
        self.vault.forget_log(&identity).await?;
        let mut scope = Scope::new();
        match self.join_managers(state, identity, &mut scope).await {
            Ok(manager) => {
                (running.manager, running.log) = (Some(manager), scope);
                Ok(())
            }
            Err(error) => {
                // Nothing of it is left for the next try.
                scope.cancel();
                scope.join().await.ok();
                Err(error)
            }
        }
    }

    async fn join_managers(
        &self,
        state: &State,
        identity: Arc<Identity>,
        scope: &mut Scope,
    ) -> Result<Manager> {
        let log = self.open_log(state, (&identity, Start::Join), scope).await?;
        let manager = self.manage(state, log, identity, scope).await?;
        // From here on a restart goes on with this log; before, it asks for another number.
        self.files.save(state).await?;
        Ok(manager)
    }

    /// A scope for one life of the member.
    fn scope(&self) -> Scope {
        Scope::with_token(self.token.child_token())
    }

    async fn open_log(
        &self,
        state: &State,
        (identity, start): (&Arc<Identity>, Start),
        scope: &mut Scope,
    ) -> Result<Log> {
        let member = state.raft_id();
        let keys = self.vault.log_keys(identity).await?;
        let config = raft::Config { member, start, ..raft::Config::new(self.files.raft(), keys) };
        let peers = Peers::new(Arc::clone(identity), member);
        let log = raft::open(config, peers.clone(), scope).await;
        let log = log.context("cannot open the cluster's log")?;
        self.vault.forget_former_log_key(identity).await?;
        Ok((log, peers))
    }

    async fn start(
        &self,
        state: &State,
        identity: Arc<Identity>,
        log: Option<Log>,
        mut log_scope: Scope,
    ) -> Result<RunningMember> {
        let mut scope = self.scope();
        let keep = keep_certificate(
            Arc::clone(&identity),
            self.vault.clone(),
            identity.changes(),
            scope.token(),
        );
        scope.spawn("certificate", keep);
        let member = dataplane::Identity {
            node: identity.node_id(),
            address: state.vtep(),
            data_path_port: state.data_path_port,
        };
        self.standalone.dataplane.identify(Some(member)).await?;
        let manager = match log {
            Some(log) => {
                Some(self.manage(state, log, Arc::clone(&identity), &mut log_scope).await?)
            }
            None => None,
        };
        let config = agent::Config {
            data: self.files.agent(),
            identity: Arc::clone(&identity),
            managers: state.managers.clone(),
            address: state.address,
            data_path_address: state.data_path_address,
            description: facts::description(&self.about),
        };
        let (engine, dataplane) =
            (self.standalone.engine.clone(), self.standalone.dataplane.clone());
        let agent = Agent::start(config, engine, dataplane, &mut scope).await?;
        Ok(RunningMember { scope, log: log_scope, agent, manager, identity })
    }

    /// Starts the cluster half on its log.
    async fn manage(
        &self,
        state: &State,
        log: Log,
        identity: Arc<Identity>,
        scope: &mut Scope,
    ) -> Result<Manager, manager::Error> {
        let (vault, own, token) = (self.vault.clone(), Arc::clone(&identity), scope.token());
        scope.spawn("lock", lock::follow(vault, own, log.0.clone(), token));
        let config = manager::Config { listen: state.listen, address: state.manager_address() };
        Manager::start(config, log, identity, scope).await
    }
}

impl RunningMember {
    /// Waits until they end by themselves, which they do only on a failure.
    pub(super) async fn ended(&self) {
        let (agent, log) = (self.scope.token(), self.log.token());
        tokio::select! {
            () = agent.cancelled() => {}
            () = log.cancelled() => {}
        }
    }

    /// Ends them and waits until they have. Where this manager leads, another one does before.
    pub(super) async fn stop(self) -> Result<(), ScopeError> {
        self.scope.cancel();
        if let Some(manager) = &self.manager
            && let Err(fault) = manager.hand_over(HAND_OVER_MAX).await
        {
            tracing::warn!(%fault, "no other manager leads yet: one will be elected");
        }
        self.log.cancel();
        let (agent, log) = tokio::join!(self.scope.join(), self.log.join());
        agent.and(log)
    }

    /// Says whether the cluster has no other manager than this node.
    pub(super) fn is_last_manager(&self) -> bool {
        let own = self.identity.node_id();
        self.manager.as_ref().is_some_and(|manager| {
            !manager.view().nodes().any(|node| node.id != own && node.manager.is_some())
        })
    }

    /// The other managers decide without this one from here on.
    pub(super) async fn resign(&self) -> Result<(), Fault> {
        match &self.manager {
            Some(manager) => manager.resign(&self.identity.node_id()).await,
            None => Ok(()),
        }
    }

    /// Takes this node's tasks down and says goodbye.
    pub(super) async fn leave(&self, limit: Duration) -> Result<()> {
        tokio::time::timeout(limit, self.agent.leave())
            .await
            .context("the node's tasks did not end in time")??;
        Ok(())
    }
}

/// A manager's, signed by the cluster's root; with all roots that are trusted (PEM).
fn identity(
    (root, roots): (&RootCa, &str),
    peer: &Peer,
    validity: Duration,
) -> Result<Identity, ca::Error> {
    let request = Identity::generate()?;
    let certificate = Authority::load(root)?.sign(request.csr(), peer, validity, now())?;
    request.accept(&certificate, roots)
}

/// Writes the node's certificate and roots down whenever they are new, so that a restart has it. Where that
/// fails (a full disk), the node goes on with the one it has in memory, and it is tried again.
async fn keep_certificate(
    identity: Arc<Identity>,
    vault: Vault,
    mut changes: watch::Receiver<u64>,
    token: CancellationToken,
) -> Result<(), Infallible> {
    let mut is_kept = true;
    loop {
        tokio::select! {
            () = token.cancelled() => return Ok(()),
            // The identity here keeps the sender.
            _ = changes.changed() => {}
            () = tokio::time::sleep(SAVE_PAUSE), if !is_kept => {}
        }
        let saved = vault.save(&identity).await;
        is_kept = saved.is_ok();
        if let Err(error) = saved {
            tracing::error!(error = format!("{error:#}"), "cannot keep the node's certificate yet");
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "certificates begin now")]
fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let nanos = since.map_or(0, |since| since.as_nanos());
    Timestamp(i64::try_from(nanos).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    fn sign(root: &RootCa, csr: &str) -> String {
        let authority = Authority::load(root).unwrap();
        let day = Duration::from_hours(24);
        let peer = Peer { node: "n1".into(), role: NodeRole::Worker, cluster: "c1".into() };
        authority.sign(csr, &peer, day, now()).unwrap()
    }

    /// On one thread, and one for what blocks.
    #[test]
    fn a_renewed_certificate_is_there_after_a_restart_and_a_disk_that_hangs_stops_nobody() {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().max_blocking_threads(1).build().unwrap();
        runtime.block_on(a_certificate_is_renewed());
    }

    async fn a_certificate_is_renewed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_owned();
        let root = Authority::create(now()).unwrap();
        let request = Identity::generate().unwrap();
        let certificate = sign(&root, request.csr());
        let identity = Arc::new(request.accept(&certificate, &root.certificate).unwrap());
        let vault = Vault::new(path.clone());
        vault.begin(&identity).await.unwrap();
        let mut scope = Scope::new();
        let changes = identity.changes();
        let keep = keep_certificate(Arc::clone(&identity), vault, changes, scope.token());
        scope.spawn("certificate", keep);

        let renew = || {
            let request = Identity::generate().unwrap();
            let certificate = sign(&root, request.csr());
            identity.renew(request, &certificate, &root.certificate).unwrap();
        };
        let saved = || Identity::load(&path, None).unwrap().map(|it| it.0.certificate());
        let (disk, hangs) = mpsc::channel::<()>();
        let waits = tokio::task::spawn_blocking(move || hangs.recv());
        renew();
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert_ne!(saved(), Some(identity.certificate()), "it is written by whoever waits for it");
        let file = path.join("node.crt.new");
        std::fs::create_dir(&file).unwrap();
        drop(disk);
        waits.await.unwrap().unwrap_err();
        // What waited for the only thread has been done before this.
        tokio::task::spawn_blocking(|| ()).await.unwrap();
        assert_ne!(saved(), Some(identity.certificate()), "something is in the way");
        // It could not be written; the next one is.
        std::fs::remove_dir(&file).unwrap();
        renew();
        let kept = async {
            while saved() != Some(identity.certificate()) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), kept).await.expect("it is saved");
        scope.cancel();
        scope.join().await.unwrap();
    }
}
