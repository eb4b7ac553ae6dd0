//! What this node is in the cluster: a worker, or a manager with a number in the log.

use super::{MembershipLoop, RESTART_MAX, State};
use anyhow::{Context, Result};
use std::time::Duration;
use types::{FaultKind, NodeRole};

/// Before a role is taken on, and a number asked for, again; twice as long with each failure.
const PAUSE: Duration = Duration::from_secs(1);

/// How far the node is with its role.
pub(super) struct Roles {
    /// A session was open when it was looked last.
    is_connected: bool,
    /// It is not sure that this manager's number in the log is still its own.
    asks_number: bool,
    pause: Duration,
}

impl Default for Roles {
    fn default() -> Self {
        Self { is_connected: false, asks_number: false, pause: PAUSE }
    }
}

impl Roles {
    pub(super) fn pause(&self) -> Duration {
        self.pause
    }

    pub(super) fn tried(&mut self, outcome: Result<()>) {
        let Err(error) = outcome else {
            self.pause = PAUSE;
            return;
        };
        tracing::warn!("{error:#}; trying again in {} s", self.pause.as_secs_f32());
        self.pause = (self.pause * 2).min(RESTART_MAX);
    }
}

impl MembershipLoop {
    /// A node that was out of touch may be something else by now.
    pub(super) fn see_session(&mut self) {
        let was_connected = self.roles.is_connected;
        self.roles.is_connected = self.status.as_ref().is_some_and(|it| it.borrow().connected);
        self.roles.asks_number |= self.roles.is_connected && !was_connected;
    }

    pub(super) fn asks_number(&self) -> bool {
        let is_manager = self.state.as_ref().is_some_and(|state| state.manager);
        self.roles.asks_number && self.roles.is_connected && is_manager && self.has_its_role()
    }

    /// Says whether this node runs what its certificate says it is.
    pub(super) fn has_its_role(&self) -> bool {
        let (Some(state), Some(running)) = (&self.state, &self.running) else { return true };
        state.manager == (running.identity.role() == NodeRole::Manager)
    }

    /// Becomes what the node's certificate says: a manager, or none any more.
    pub(super) async fn take_role(&mut self) -> Result<()> {
        if self.has_its_role() {
            return Ok(());
        }
        let (Some(state), Some(running)) = (&mut self.state, &mut self.running) else {
            return Ok(());
        };
        if running.identity.role() == NodeRole::Worker {
            tracing::info!("this node is no manager any more");
            return self.begin_as_worker().await;
        }
        // Where somebody else has the port it would get a number for nothing, again and again.
        let listens = tokio::net::TcpListener::bind(state.listen).await;
        drop(listens.with_context(|| {
            format!("this node cannot be a manager: it cannot listen on {}", state.listen)
        })?);
        let managers = running.agent.status().borrow().managers.clone();
        let address = state.manager_address();
        let raft_id = ca::enroll(&managers, &running.identity, &address).await?;
        tracing::info!(raft_id, "this node becomes a manager");
        let as_manager = State { manager: true, raft_id, ..state.clone() };
        self.launcher.promote(&as_manager, running).await?;
        *state = as_manager;
        Ok(())
    }

    /// Asks the one that leads whether this manager's number in the log is still its own. It may have
    /// been demoted and promoted again while it was away: then it begins anew, with another one.
    pub(super) async fn ask_number(&mut self) -> Result<()> {
        let (Some(state), Some(running)) = (&self.state, &self.running) else { return Ok(()) };
        let managers = running.agent.status().borrow().managers.clone();
        let (own, address) = (state.raft_id(), state.manager_address());
        let number = match ca::number(&managers, &running.identity, (own, &address)).await {
            Ok(number) => number,
            // One of an earlier release leads.
            Err(fault) if fault.kind == FaultKind::NotImplemented => own,
            Err(fault) => return Err(fault).context("cannot ask for this manager's number"),
        };
        self.roles.asks_number = false;
        if number == own {
            return Ok(());
        }
        tracing::info!(own, "the managers know this one by its number no more: it begins anew");
        self.begin_as_worker().await
    }

    /// What it has of the log goes; where it is a manager, it gets another number.
    async fn begin_as_worker(&mut self) -> Result<()> {
        let Some(state) = &mut self.state else { return Ok(()) };
        let as_worker = State { manager: false, ..state.clone() };
        self.launcher.files.save(&as_worker).await?;
        *state = as_worker;
        self.begin_again().await
    }

    /// Ends what runs, and starts what is to run now.
    async fn begin_again(&mut self) -> Result<()> {
        (self.status, self.renewals) = (None, None);
        if let Some(running) = self.running.take() {
            running.stop().await.context("what this node ran for the cluster ended badly")?;
        }
        self.catch_up().await;
        Ok(())
    }
}
