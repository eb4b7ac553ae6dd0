//! Taking over after a restart: what runs goes on, what ended meanwhile is noted, and what nobody
//! knows is removed.

use crate::blocking::{blocking, cannot};
use crate::config::NetworkMode;
use crate::container::Container;
use crate::engine::Engine;
use crate::info::Status;
use crate::record::{self, Record};
use crate::runtime::State;
use crate::{clock, memory, signals};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use types::{Fault, FaultKind};

/// The runtime's daemon may be starting, too.
const TRIES: u32 = 60;
const PAUSE: Duration = Duration::from_millis(500);

impl Engine {
    /// Reads the records and brings them and the runtime together.
    pub(crate) async fn take_over(&self) -> Result<(), Fault> {
        let (data, run) = (self.inner.config.data.clone(), self.inner.config.run.clone());
        let records = blocking(move || read_records(&data, &run)).await?;
        for record in records {
            let (folder, run) = (self.folder(&record.id), self.run_folder(&record.id));
            let id = record.id.clone();
            match Container::new(record, (folder, run), &self.inner.config.journal) {
                Ok(container) => self.registry().insert(Arc::new(container)),
                Err(fault) => tracing::error!(id, %fault, "a container's record cannot be used"),
            }
        }
        let states = self.states().await?;
        self.unmount_leftovers().await?;
        self.remove_strangers(&states).await;
        for container in self.containers() {
            let state = states.get(container.id());
            if may_use_volumes(&container, state) {
                self.note_volumes(&container);
            }
        }
        let sandboxes = self.inner.dataplane.sandboxes().await.unwrap_or_default();
        for container in self.containers() {
            if let Some(sandbox) = sandboxes.get(container.id()) {
                self.see_places(&container).await;
                let mut live = container.live();
                live.address = sandbox.gateway_addresses.v4;
                live.netns = Some(PathBuf::from(&sandbox.netns));
            }
            let state = states.get(container.id()).copied();
            self.take_over_one(&container, state).await;
        }
        self.tidy_volumes().await;
        self.clear_run_folders().await
    }

    /// Notes where a container is that a former release started, which did not.
    async fn see_places(&self, container: &Container) {
        let places = self.inner.dataplane.places(container.id()).await.unwrap_or_default();
        if !places.is_empty() {
            container.state.send_modify(|state| state.places = places);
        }
    }

    /// Removes what the runtime has and no record is of. Where a folder is, there is a record, too,
    /// but it could not be read: that container goes on, for a user to see to.
    async fn remove_strangers(&self, states: &BTreeMap<String, State>) {
        for id in states.keys() {
            if self.registry().of_id(id).is_some() {
                continue;
            }
            let folder = self.folder(id);
            let recorded = blocking(move || Ok(folder.try_exists().unwrap_or(true)));
            if recorded.await.unwrap_or(true) {
                tracing::error!(id, "a container whose record cannot be used is left as it is");
                continue;
            }
            tracing::info!(id, "removing a container that has no record");
            // Whoever had attached it detaches it; it is fine where nobody had.
            self.clear_away_plain(id, NetworkMode::Bridge).await;
        }
    }

    async fn states(&self) -> Result<BTreeMap<String, State>, Fault> {
        let mut tries = 0;
        loop {
            match self.inner.runtime.list().await {
                Err(fault) if fault.kind == FaultKind::Unavailable && tries < TRIES => {
                    tries += 1;
                    let pause = tokio::time::sleep(PAUSE);
                    if self.inner.token.run_until_cancelled(pause).await.is_none() {
                        return Err(fault);
                    }
                }
                listed => return listed,
            }
        }
    }

    async fn take_over_one(&self, container: &Arc<Container>, state: Option<State>) {
        self.carry_task(container, state);
        // A runtime leaves out of its list what does not answer at that moment. Where its streams
        // are, a container may have been started just before the engine died.
        let may_run = container.status() == Status::Running || container.run.exists();
        if matches!(state, Some(State::Prepared) | None) && may_run {
            self.ask_again(container);
            return;
        }
        self.conclude(container, state).await;
    }

    /// Carries the output of a container that has a task.
    fn carry_task(&self, container: &Arc<Container>, state: Option<State>) {
        let has_task =
            matches!(state, Some(State::Running { .. } | State::Ended(_) | State::Unknown));
        if has_task && let Err(fault) = self.carry(container, None) {
            // After the machine was restarted, or when the run directory was emptied.
            tracing::warn!(id = container.id(), %fault, "output of a container is lost");
        }
    }

    /// Asks the runtime until it can tell how a container is: nothing is concluded before, nor where
    /// somebody has started, ended or removed it meanwhile.
    fn ask_again(&self, container: &Arc<Container>) {
        let (engine, container) = (self.clone(), Arc::clone(container));
        let seen = |container: &Container| {
            let state = container.state.borrow();
            (state.status, state.starts)
        };
        let before = seen(&container);
        self.inner.tracker.spawn(async move {
            if let Some(state) = engine.known_state(&container).await {
                let _turn = container.operation.lock().await;
                if seen(&container) != before {
                    return;
                }
                let is_carried = container.live().pump.is_some();
                if !is_carried {
                    engine.carry_task(&container, state);
                }
                Box::pin(engine.conclude(&container, state)).await;
            }
        });
    }

    /// Brings what is recorded of a container and how it is together.
    async fn conclude(&self, container: &Arc<Container>, state: Option<State>) {
        if matches!(state, Some(State::Prepared) | None)
            && let Some(remote) = &container.remote
        {
            remote.send_unsent(&self.inner.tracker, self.inner.token.clone()).await;
        }
        match (state, container.status()) {
            (_, Status::Removing) => self.remove_beside(container),
            (Some(State::Unknown), Status::Created | Status::Running | Status::Exited) => {
                self.ask_again(container);
            }
            (Some(State::Running { pid }), Status::Running) => {
                // Each is a write to the disk that is waited for, and all are taken over in a row.
                if container.state.borrow().pid != pid {
                    container.update(|state| state.pid = pid).await;
                }
                self.end_old_execs(container);
                self.look_after(container);
            }
            // The engine died between starting it and writing that down.
            (Some(State::Running { pid }), Status::Created | Status::Exited) => {
                self.began(container, pid, clock::now()).await;
            }
            (Some(State::Ended(exit)), Status::Running) => {
                self.note_end(container.id(), Some(exit));
            }

            (Some(State::Ended(_)), Status::Created | Status::Exited) => {
                let started = types::Timestamp::default();
                container.state.send_modify(|state| {
                    state.status = Status::Running;
                    state.started_at = started;
                });
                self.note_end(container.id(), None);
            }
            (Some(State::Prepared) | None, Status::Running) => self.note_end(container.id(), None),
            // The engine died between its end and its removal.
            (Some(State::Prepared) | None, Status::Exited)
                if container.fixed.config.auto_remove =>
            {
                self.remove_beside(container);
            }
            (Some(State::Prepared) | None, Status::Created | Status::Exited) => {
                // The engine died between connecting and starting it, or before it was all gone.
                let is_connected = container.live().netns.is_some()
                    && container.fixed.config.network == NetworkMode::Bridge;
                if is_connected || container.run.exists() {
                    self.take_down(container).await;
                }
            }
        }
    }

    fn remove_beside(&self, container: &Arc<Container>) {
        let (engine, container) = (self.clone(), Arc::clone(container));
        self.inner.tracker.spawn(async move { engine.remove_itself(&container).await });
    }

    /// Processes that clients had started in a container lost them with the old engine.
    fn end_old_execs(&self, container: &Arc<Container>) {
        let entries = fs::read_dir(&container.run).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        let execs = names.filter_map(|name| name.strip_suffix("-stdout").map(str::to_owned));
        for exec in execs {
            let (runtime, id) = (Arc::clone(&self.inner.runtime), container.id().to_owned());
            let run = container.run.clone();
            let ending = async move {
                let _ended = runtime.exec_signal(id.clone(), exec.clone(), signals::KILL).await;
                let waiting = runtime.exec_wait(id, exec.clone());
                let _gone = tokio::time::timeout(PAUSE * TRIES, waiting).await;
                // What a former release has put aside of them goes, too.
                for stream in ["stdin", "stdout", "stderr", "stdout.aside", "stderr.aside"] {
                    let _gone = fs::remove_file(run.join(format!("{exec}-{stream}")));
                }
            };
            let token = self.inner.token.clone();
            self.inner.tracker.spawn(async move { token.run_until_cancelled(ending).await });
        }
    }

    /// The runtime may have missed something: ends are found in its list.
    pub(super) async fn catch_up(&self) {
        let states = match self.states().await {
            Ok(states) => states,
            Err(fault) => {
                tracing::warn!(%fault, "cannot list containers; ends may be noticed late");
                return;
            }
        };
        for container in self.containers() {
            match container.status() {
                Status::Running => {}
                Status::Exited if container.fixed.config.auto_remove => {
                    self.remove_beside(&container);
                    continue;
                }
                Status::Created | Status::Exited | Status::Removing => continue,
            }
            match states.get(container.id()) {
                Some(State::Running { .. }) => {}
                Some(State::Ended(exit)) => self.note_end(container.id(), Some(*exit)),
                // Looked at again before it is believed: it may have started after the list.
                Some(State::Prepared | State::Unknown) | None => {
                    self.note_end(container.id(), None);
                }
            }
        }
    }

    /// Removes what is left in the run directory of containers that nobody knows: what is concluded
    /// of the others sees to theirs. One whose record cannot be used may run.
    async fn clear_run_folders(&self) -> Result<(), Fault> {
        let run = self.inner.config.run.clone();
        let folders = self.inner.config.data.join("containers");
        blocking(move || {
            for entry in entries(&run)? {
                let name = entry.file_name().unwrap_or_default();
                let stays = folders.join(name).try_exists().unwrap_or(true);
                if !stays && let Err(error) = memory::remove_run(&entry) {
                    let path = entry.display();
                    tracing::warn!(%path, %error, "a leftover with secrets and streams stays");
                }
            }
            Ok(())
        })
        .await
    }
}

/// Says whether a container runs or may run, or its end has not been followed up: then its volumes
/// are let go of when it has ended.
fn may_use_volumes(container: &Container, state: Option<&State>) -> bool {
    let has_task = matches!(state, Some(State::Running { .. } | State::Ended(_) | State::Unknown));
    has_task || container.status() == Status::Running || container.run.exists()
}

fn read_records(data: &Path, run: &Path) -> Result<Vec<Record>, Fault> {
    for folder in ["containers", "volumes"] {
        let made = record::private_folder(&data.join(folder));
        made.map_err(cannot("make the engine's folder"))?;
    }
    record::private_folder(run).map_err(cannot("make the engine's run directory"))?;
    let mut records = Vec::new();
    for folder in entries(&data.join("containers"))? {
        if let Err(error) = record::private_folder(&folder) {
            tracing::warn!(path = %folder.display(), %error, "cannot set a folder's mode");
        }
        match record::read(&folder) {
            Ok(record) if folder.ends_with(&record.id) && !record.id.is_empty() => {
                records.push(record);
            }
            // Made just before the engine died; there is nothing of it yet.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let _gone = fs::remove_dir_all(&folder);
            }
            Ok(_) => tracing::error!(path = %folder.display(), "a record is in the wrong place"),
            Err(error) => tracing::error!(path = %folder.display(), %error, "a record is damaged"),
        }
    }
    Ok(records)
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>, Fault> {
    let entries = fs::read_dir(folder).map_err(cannot("read the engine's folder"))?;
    Ok(entries.filter_map(|entry| Some(entry.ok()?.path())).collect())
}
