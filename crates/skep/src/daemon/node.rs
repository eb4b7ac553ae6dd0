//! The port that the API has to its node: joining and leaving, one at a time.
//!
//! One loop owns the membership. It starts what a member runs, starts it again when it fails, and
//! carries out what users order; everybody else sees a snapshot.

mod role;

use super::Standalone;
use super::address;
use super::member::{Launcher, RunningMember};
use super::state::{Files, State};
use super::vault::Vault;
use anyhow::{Context, Result};
use ca::UnlockKey;
use engine_api::{About, Init, Join, Member, Membership, Node, Restore};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use role::Roles;
use scope::{BoxError, Scope};
use std::path::Path;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use types::{Fault, FaultKind, NodeId, chain};

/// Orders that may wait; a caller waits when it is full.
const ORDERS: usize = 16;
/// Before what failed is tried again: to start what a member runs, and to clear away what it has
/// left. At first and at most.
const RESTART_MIN: Duration = Duration::from_millis(500);
const RESTART_MAX: Duration = Duration::from_secs(30);
/// How long a join may take before the user is told that it goes on in the background.
const JOIN_MAX: Duration = Duration::from_secs(20);
/// For a new manager to hear of the cluster.
const FOLLOW_MAX: Duration = Duration::from_secs(15);
/// How long tasks may take to end when a node leaves.
const LEAVE_MAX: Duration = Duration::from_mins(1);

/// What users order, with the way to answer.
enum Order {
    Init(Box<Init>, oneshot::Sender<Result<NodeId, Fault>>),
    Restore(Box<Restore>, oneshot::Sender<Result<NodeId, Fault>>),
    Join(Box<Join>, oneshot::Sender<Result<(), Fault>>),
    Leave(bool, oneshot::Sender<Result<(), Fault>>),
    Unlock(String, oneshot::Sender<Result<(), Fault>>),
}

/// This node, as the API sees it.
pub(super) struct HostNode {
    about: About,
    orders: mpsc::Sender<Order>,
    membership: watch::Receiver<Membership>,
}

/// Starts the loop; returns once a member of a cluster runs again.
pub(super) async fn start(
    data: &Path,
    about: About,
    standalone: Standalone,
    scope: &mut Scope,
) -> Result<HostNode> {
    let files = Files::new(data);
    let state = files.load()?;
    let vault = Vault::new(files.certificates());
    let (about_node, token) = (about.clone(), scope.token());
    let launcher = Launcher { files, vault, about: about_node, standalone, token };
    let (publish, membership) = watch::channel(Membership::Inactive);
    let (orders, inbox) = mpsc::channel(ORDERS);
    let mut owner = MembershipLoop {
        launcher,
        state,
        running: None,
        status: None,
        renewals: None,
        publish,
        // A daemon that was killed while it left has not come so far.
        is_clear: false,
        is_locked: false,
        roles: Roles::default(),
        restart: RESTART_MIN,
    };
    owner.catch_up().await;
    scope.spawn("membership", owner.run(inbox, scope.token()));
    Ok(HostNode { about, orders, membership })
}

/// Owns the membership.
struct MembershipLoop {
    launcher: Launcher,
    state: Option<State>,
    running: Option<RunningMember>,
    /// How the agent gets on; there is one while a member runs.
    status: Option<watch::Receiver<agent::Status>>,
    /// Tells of every new certificate of its.
    renewals: Option<watch::Receiver<u64>>,
    publish: watch::Sender<Membership>,
    /// Nothing is left of a membership that is over.
    is_clear: bool,
    /// The node's keys wait for the unlock key.
    is_locked: bool,
    roles: Roles,
    /// The next pause after a failure.
    restart: Duration,
}

enum Event {
    Ordered(Order),
    Ended,
    News,
    Due,
    /// The node's certificate says that it is a manager now, or none any more.
    Role,
    /// A manager is to ask whether it is still who it was.
    Number,
}

impl MembershipLoop {
    async fn run(
        mut self,
        mut inbox: mpsc::Receiver<Order>,
        shutdown: CancellationToken,
    ) -> Result<(), BoxError> {
        loop {
            let due = match &self.state {
                Some(_) => self.running.is_none() && !self.is_locked,
                None => !self.is_clear,
            };
            let event = tokio::select! {
                biased;
                () = shutdown.cancelled() => {
                    if let Some(running) = self.running.take() {
                        running.stop().await?;
                    }
                    return Ok(());
                }
                Some(order) = inbox.recv() => Event::Ordered(order),
                () = ended(self.running.as_ref()) => Event::Ended,
                () = news(self.status.as_mut()) => Event::News,
                () = renewed(self.renewals.as_mut()) => Event::Role,
                () = tokio::time::sleep(self.restart), if due => Event::Due,
                () = tokio::time::sleep(self.roles.pause()), if !self.has_its_role() => Event::Role,
                () = tokio::time::sleep(self.roles.pause()), if self.asks_number() => Event::Number,
            };
            match event {
                Event::Ordered(order) => self.carry_out(order).await,
                Event::Ended if shutdown.is_cancelled() => {}
                Event::Ended => {
                    self.status = None;
                    if let Some(running) = self.running.take()
                        && let Err(error) = running.stop().await
                    {
                        tracing::error!(
                            error = chain(&error),
                            "what this node runs for the cluster failed; starting it again"
                        );
                    }
                    self.tell();
                }
                Event::News => {
                    self.remember().await;
                    self.see_session();
                    self.tell();
                }
                Event::Due => self.catch_up().await,
                Event::Role => {
                    let taken = self.take_role().await;
                    self.roles.tried(taken);
                    self.tell();
                }
                Event::Number => {
                    let asked = self.ask_number().await;
                    self.roles.tried(asked);
                    self.tell();
                }
            }
        }
    }

    /// Starts a member that does not run; clears away what is left of one that is none any more.
    async fn catch_up(&mut self) {
        let done = match &mut self.state {
            Some(state) => {
                let resumed = self.launcher.resume(state).await;
                self.is_locked = resumed.as_ref().err().is_some_and(Vault::is_locked);
                if self.is_locked {
                    tracing::warn!("this manager is locked: it waits for the unlock key");
                    return self.tell();
                }
                let taken = resumed.map(|running| self.take(running));
                taken.context("cannot take part in the cluster")
            }
            None => self.clear().await.context("something is left of a cluster"),
        };
        if let Err(error) = done {
            tracing::error!("{error:#}; trying again in {} s", self.restart.as_secs_f32());
            self.restart = (self.restart * 2).min(RESTART_MAX);
        }
        self.tell();
    }

    fn take(&mut self, running: RunningMember) {
        self.status = Some(running.agent.status());
        self.renewals = Some(running.identity.changes());
        self.running = Some(running);
        self.restart = RESTART_MIN;
    }

    /// Keeps what managers say of the cluster for the next start.
    async fn remember(&mut self) {
        let (Some(state), Some(status)) = (&mut self.state, &self.status) else { return };
        let before = state.clone();
        {
            let status = status.borrow();
            state.managers.clone_from(&status.managers);
            if status.data_path_port != 0 {
                state.data_path_port = status.data_path_port;
            }
        }
        if *state != before
            && let Err(error) = self.launcher.files.save(state).await
        {
            tracing::warn!(error = format!("{error:#}"), "cannot keep where managers are");
        }
    }

    /// Publishes what is so.
    fn tell(&self) {
        let membership = match (&self.state, &self.running) {
            (Some(state), Some(running)) => Membership::Active(Box::new(Member {
                node: running.identity.node_id(),
                address: state.address,
                managers: state.managers.clone(),
                manager: running.manager.clone(),
                error: running.agent.status().borrow().error.clone(),
            })),
            (Some(_), None) if self.is_locked => Membership::Locked,
            (Some(_), None) => Membership::Pending {
                reason: "the node's part in the cluster is being started".to_owned(),
            },
            (None, _) => Membership::Inactive,
        };
        self.publish.send_replace(membership);
    }

    async fn carry_out(&mut self, order: Order) {
        // Who ordered may have gone; what was done stays done.
        match order {
            Order::Init(init, reply) => drop(reply.send(self.init(*init).await)),
            Order::Restore(restore, reply) => drop(reply.send(self.restore(*restore).await)),
            Order::Join(join, reply) => drop(reply.send(self.join(*join).await)),
            Order::Leave(force, reply) => drop(reply.send(self.leave(force).await)),
            Order::Unlock(key, reply) => drop(reply.send(self.unlock(&key).await)),
        }
        self.tell();
    }

    /// Refuses to be a member twice, and begins with no files of a membership before.
    async fn begin_anew(&mut self) -> Result<(), Fault> {
        if self.state.is_some() {
            return Err(Fault::unavailable(
                "This node is already part of a swarm. Use \"docker swarm leave\" to leave this \
                 swarm and join another one.",
            ));
        }
        // What follows may fail half-way.
        (self.is_clear, self.restart) = (false, RESTART_MIN);
        self.launcher.files.remove().await.map_err(|error| fault(&error))
    }

    async fn init(&mut self, init: Init) -> Result<NodeId, Fault> {
        if init.force_new_cluster
            && let Some(state) = self.state.clone()
        {
            return self.go_on_alone(&init, state).await;
        }
        self.begin_anew().await?;
        let interfaces = address::interfaces()?;
        let listen = address::listen(&init.listen, &interfaces)?;
        let advertise = address::advertise(&init.advertise, listen, &interfaces)?;
        let data_path = address::data_path(&init.data_path, advertise.0, &interfaces)?;
        let (state, running) = self
            .launcher
            .found(init, (advertise, data_path), listen)
            .await
            .map_err(|error| fault(&error))?;
        let node = running.identity.node_id();
        self.state = Some(state);
        self.take(running);
        Ok(node)
    }

    async fn restore(&mut self, restore: Restore) -> Result<NodeId, Fault> {
        self.begin_anew().await?;
        let interfaces = address::interfaces()?;
        let listen = address::listen(&restore.listen, &interfaces)?;
        let advertise = address::advertise(&restore.advertise, listen, &interfaces)?;
        let data_path = address::data_path(&restore.data_path, advertise.0, &interfaces)?;
        let restored = self.launcher.restore(restore.view, (advertise, data_path), listen).await;
        let (state, running) = restored.map_err(|error| fault(&error))?;
        let node = running.identity.node_id();
        self.state = Some(state);
        self.take(running);
        Ok(node)
    }

    /// The same cluster with this node as its only manager. An address that is not given stays.
    async fn go_on_alone(&mut self, init: &Init, mut state: State) -> Result<NodeId, Fault> {
        if self.is_locked {
            return Err(Fault::unavailable(engine_api::LOCKED));
        }
        if !state.manager {
            return Err(Fault::unavailable(engine_api::A_WORKER));
        }
        state.alone = true;
        if !init.advertise.is_empty() {
            let interfaces = address::interfaces()?;
            state.listen = address::listen(&init.listen, &interfaces)?;
            (state.address, state.port) =
                address::advertise(&init.advertise, state.listen, &interfaces)?;
            state.data_path_address =
                address::data_path(&init.data_path, state.address, &interfaces)?;
        }
        state.managers = vec![state.manager_address()];
        // From here on it happens, if not now, then at the next start.
        self.launcher.files.save(&state).await.map_err(|error| fault(&error))?;
        (self.status, self.renewals) = (None, None);
        if let Some(running) = self.running.take()
            && let Err(error) = running.stop().await
        {
            tracing::warn!(error = chain(&error), "what this node ran before ended badly");
        }
        let resumed = self.launcher.resume(&mut state).await;
        self.state = Some(state);
        let running = resumed.map_err(|error| fault(&error))?;
        let node = running.identity.node_id();
        self.take(running);
        Ok(node)
    }

    async fn join(&mut self, join: Join) -> Result<(), Fault> {
        self.begin_anew().await?;
        let interfaces = address::interfaces()?;
        let listen = address::listen(&join.listen, &interfaces)?;
        let (address, port) = address::advertise(&join.advertise, listen, &interfaces)?;
        let data_path_address = address::data_path(&join.data_path, address, &interfaces)?;
        let managers = join
            .remotes
            .iter()
            .map(|remote| address::remote(remote))
            .collect::<Result<Vec<_>, _>>()?;
        let identity = ca::join(&managers, &join.token, join.availability).await?;
        let state = State {
            address,
            data_path_address,
            listen,
            managers,
            data_path_port: 4789,
            manager: false,
            raft_id: 0,
            port,
            alone: false,
        };
        let running = self.launcher.begin(&state, identity).await.map_err(|error| fault(&error))?;
        let mut status = running.agent.status();
        self.state = Some(state);
        self.take(running);
        let joined = async {
            // It has ended otherwise.
            drop(status.wait_for(|status| status.connected).await);
            self.take_role().await.map_err(|error| fault(&error))?;
            follows(self.running.as_ref()).await;
            Ok(())
        };
        match tokio::time::timeout(JOIN_MAX, joined).await {
            Ok(joined) => joined,
            Err(_) => Err(Fault::unavailable(
                "Timeout was reached before node joined. The attempt to join the swarm will \
                 continue in the background. Use the \"docker info\" command to see the current \
                 swarm status of your node.",
            )),
        }
    }

    async fn unlock(&mut self, key: &str) -> Result<(), Fault> {
        if self.state.is_none() {
            return Err(Fault::unavailable(NOT_A_MEMBER));
        }
        if !self.is_locked {
            return Err(Fault::conflict("swarm is not locked"));
        }
        let key = UnlockKey::parse(key).ok_or_else(|| Fault::invalid("invalid key string"))?;
        self.launcher.vault.unlock(key).await.map_err(|error| match error {
            ca::Error::UnlockKey => Fault::new(FaultKind::Unauthorized, WRONG_KEY),
            error => error.into(),
        })?;
        self.restart = RESTART_MIN;
        self.catch_up().await;
        match &self.running {
            Some(_) => Ok(()),
            None => Err(Fault::unavailable(
                "swarm component could not be started: the daemon's log says why",
            )),
        }
    }

    async fn leave(&mut self, force: bool) -> Result<(), Fault> {
        let Some(state) = &self.state else {
            return Err(Fault::unavailable(NOT_A_MEMBER));
        };
        if self.is_locked && !force {
            return Err(Fault::unavailable(LOCKED));
        }
        let is_last = self.running.as_ref().is_none_or(RunningMember::is_last_manager);
        if state.manager && !force {
            return Err(Fault::unavailable(if is_last { LAST_MANAGER } else { ONE_MANAGER }));
        }
        self.status = None;
        if let Some(running) = self.running.take() {
            if !is_last && let Err(fault) = running.resign().await {
                tracing::warn!(%fault, "the other managers still count this one");
            }
            // Also where no manager could be told the tasks are down.
            if let Err(error) = running.leave(LEAVE_MAX).await {
                tracing::warn!(error = format!("{error:#}"), "left without saying goodbye");
            }
            if let Err(error) = running.stop().await {
                tracing::warn!(
                    error = chain(&error),
                    "what this node ran for the cluster ended badly"
                );
            }
        }
        (self.state, self.is_clear, self.restart) = (None, false, RESTART_MIN);
        self.is_locked = false;
        // With them, the next daemon would be a member again.
        self.launcher.files.remove().await.map_err(|error| fault(&error))?;
        self.catch_up().await;
        Ok(())
    }

    /// Removes what a membership that is over may have left: its files, tasks' containers that did
    /// not end in time, and the cluster's networks. What cannot be removed keeps nothing else.
    async fn clear(&mut self) -> Result<()> {
        self.launcher.files.remove().await?;
        let Standalone { engine, dataplane } = &self.launcher.standalone;
        let mut cleared = Ok(());
        for container in engine.list(true).await {
            if container.config.task().is_some() {
                tracing::warn!(name = container.name, "removing what is left of a task");
                cleared = cleared.and(self.remove(&container.id).await);
            }
        }
        cleared.and(dataplane.identify(None).await.map_err(Into::into))?;
        (self.is_clear, self.restart) = (true, RESTART_MIN);
        Ok(())
    }

    async fn remove(&self, container: &str) -> Result<()> {
        let Standalone { engine, dataplane } = &self.launcher.standalone;
        engine.remove(container, true, true).await?;
        Ok(dataplane.detach(container).await?)
    }
}

/// Docker's words to who is in no cluster, to who would leave a locked one, and to who has a wrong key.
const NOT_A_MEMBER: &str = "This node is not part of a swarm";
const LOCKED: &str = "Swarm is encrypted and locked. Please unlock it first or use `--force` to \
     ignore this message.";
const WRONG_KEY: &str = "swarm could not be unlocked: invalid key provided";
/// Docker's words to who would have the only manager leave, and one of several.
const LAST_MANAGER: &str = "You are attempting to leave the swarm on a node that is participating as a \
     manager. Removing the last manager erases all current state of the swarm. Use `--force` to \
     ignore this message.";
const ONE_MANAGER: &str = "You are attempting to leave the swarm on a node that is participating as a \
     manager. Doing so may lose the consensus of your cluster. Demote it first (docker node \
     demote), or use `--force` to ignore this message.";

/// Waits until a new manager knows the cluster.
async fn follows(running: Option<&RunningMember>) {
    if let Some(manager) = running.and_then(|running| running.manager.as_ref()) {
        let mut views = manager.watch();
        let known = views.wait_for(|view| view.cluster().is_some());
        // It goes on in the background.
        drop(tokio::time::timeout(FOLLOW_MAX, known).await);
    }
}

/// Waits until the node has another certificate.
async fn renewed(renewals: Option<&mut watch::Receiver<u64>>) {
    if let Some(renewals) = renewals
        && renewals.changed().await.is_ok()
    {
        return;
    }
    std::future::pending::<()>().await;
}

async fn ended(running: Option<&RunningMember>) {
    match running {
        Some(running) => running.ended().await,
        None => std::future::pending().await,
    }
}

/// Waits until the agent's status has changed.
async fn news(status: Option<&mut watch::Receiver<agent::Status>>) {
    if let Some(status) = status
        && status.changed().await.is_ok()
    {
        return;
    }
    // Without an agent, or at its end, which is told otherwise.
    std::future::pending::<()>().await;
}

/// A fault for the user: the one that is inside, or an internal one with all causes.
fn fault(error: &anyhow::Error) -> Fault {
    error.downcast_ref::<Fault>().cloned().unwrap_or_else(|| Fault::internal(format!("{error:#}")))
}

impl HostNode {
    async fn order<T>(
        &self,
        order: impl FnOnce(oneshot::Sender<Result<T, Fault>>) -> Order,
    ) -> Result<T, Fault> {
        let ending = || Fault::unavailable("the daemon is ending");
        let (reply, answer) = oneshot::channel();
        self.orders.send(order(reply)).await.map_err(|_closed| ending())?;
        answer.await.map_err(|_closed| ending())?
    }
}

impl Node for HostNode {
    fn about(&self) -> &About {
        &self.about
    }

    fn membership(&self) -> Membership {
        self.membership.borrow().clone()
    }

    fn memberships(&self) -> watch::Receiver<Membership> {
        self.membership.clone()
    }

    fn init(&self, request: Init) -> BoxFuture<'_, Result<NodeId, Fault>> {
        self.order(|reply| Order::Init(Box::new(request), reply)).boxed()
    }

    fn restore(&self, request: Restore) -> BoxFuture<'_, Result<NodeId, Fault>> {
        self.order(|reply| Order::Restore(Box::new(request), reply)).boxed()
    }

    fn join(&self, request: Join) -> BoxFuture<'_, Result<(), Fault>> {
        self.order(|reply| Order::Join(Box::new(request), reply)).boxed()
    }

    fn leave(&self, force: bool) -> BoxFuture<'_, Result<(), Fault>> {
        self.order(move |reply| Order::Leave(force, reply)).boxed()
    }

    fn unlock(&self, key: String) -> BoxFuture<'_, Result<(), Fault>> {
        self.order(move |reply| Order::Unlock(key, reply)).boxed()
    }
}

#[cfg(test)]
mod tests;
