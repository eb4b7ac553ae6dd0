//! Removing a container and all that was made for it.

use crate::blocking::{blocking, cannot};
use crate::config::NetworkMode;
use crate::container::Container;
use crate::engine::Engine;
use crate::info::Status;
use crate::memory;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use types::Fault;

impl Engine {
    /// Removes a container; one that runs only with `force`. Its anonymous volumes go where
    /// `volumes`.
    #[expect(clippy::fn_params_excessive_bools, reason = "the two flags of docker rm")]
    pub async fn remove(&self, name: &str, force: bool, volumes: bool) -> Result<(), Fault> {
        let (engine, container) = (self.clone(), self.find(name)?);
        self.complete(async move {
            if !force {
                return engine.remove_stopped(&container, volumes).await;
            }
            if container.status() == Status::Running
                && let Err(fault) = engine.end_by_force(&container).await
            {
                // The runtime removes whatever is left.
                tracing::warn!(id = container.id(), %fault, "removing a container that runs");
            }
            let _turn = container.operation.lock().await;
            engine.remove_in_turn(&container, volumes).await
        })
        .await
    }

    async fn remove_stopped(&self, container: &Container, volumes: bool) -> Result<(), Fault> {
        let runs = || {
            Fault::conflict(format!(
                "cannot remove container \"/{}\": container is running: stop the container before \
                 removing or force remove",
                container.fixed.name
            ))
        };
        // Told at once: a container that is about to end is refused, too.
        if container.status() == Status::Running {
            return Err(runs());
        }
        let _turn = container.operation.lock().await;
        if container.status() == Status::Running {
            return Err(runs());
        }
        self.remove_in_turn(container, volumes).await
    }

    /// Removes a container that is to be gone after its end, with its anonymous volumes: not one
    /// that runs (again), nor while somebody restarts it.
    pub(super) async fn remove_itself(&self, container: &Container) {
        let _turn = container.operation.lock().await;
        let stays = container.status() == Status::Running || container.restarts();
        if container.fixed.config.auto_remove
            && !stays
            && let Err(fault) = self.remove_in_turn(container, true).await
        {
            tracing::warn!(id = container.id(), %fault, "cannot remove a container that has ended");
        }
    }

    /// Whoever calls this has the container's turn.
    async fn remove_in_turn(&self, container: &Container, volumes: bool) -> Result<(), Fault> {
        if container.gone.is_cancelled() {
            return Ok(());
        }
        let before = container.status();
        container.state.send_modify(|state| state.status = Status::Removing);
        if let Err(fault) = self.inner.runtime.delete(container.id().to_owned()).await {
            container.state.send_modify(|state| state.status = before);
            return Err(fault);
        }
        self.take_down(container).await;
        if volumes {
            self.remove_anonymous_volumes(container).await;
        }
        let folder = container.folder.clone();
        blocking(move || remove_folder(&folder)).await?;
        self.forget_execs(container.id());
        self.registry().remove(container.id());
        container.tell(&self.inner.events, "destroy", &[]);
        container.gone.cancel();
        Ok(())
    }

    async fn remove_anonymous_volumes(&self, container: &Container) {
        let anonymous = container.fixed.mounts.iter().filter(|point| point.anonymous);
        for point in anonymous {
            let (engine, id) = (self.clone(), container.id().to_owned());
            let name = point.mount.source.clone();
            if let Err(fault) = blocking(move || engine.remove_unused(&name, &id)).await {
                tracing::debug!(%fault, "an anonymous volume stays");
            }
        }
    }

    /// Removes what there is of a container that has no record (any more). Failures are told and
    /// left to the next start.
    pub(super) async fn clear_away(&self, id: &str) {
        if let Err(fault) = self.inner.runtime.delete(id.to_owned()).await {
            tracing::warn!(id, %fault, "a container that nobody knows stays");
        }
        let (folder, run) = (self.folder(id), self.run_folder(id));
        let cleared = blocking(move || {
            remove_folder(&folder)?;
            memory::remove(&run).map_err(cannot("take a container's files out of memory"))?;
            remove_folder(&run)
        });
        if let Err(fault) = cleared.await {
            tracing::warn!(id, %fault, "files of a container that nobody knows stay");
        }
    }

    /// As [`Self::clear_away`], with its network where no task has one of this id.
    pub(super) async fn clear_away_plain(&self, id: &str, network: NetworkMode) {
        self.clear_away(id).await;
        if network == NetworkMode::Bridge
            && let Err(error) = self.inner.dataplane.detach(id).await
        {
            tracing::warn!(id, %error, "the network of a container that nobody knows stays");
        }
    }

    pub(super) fn folder(&self, id: &str) -> PathBuf {
        self.inner.config.data.join("containers").join(id)
    }

    pub(super) fn run_folder(&self, id: &str) -> PathBuf {
        self.inner.config.run.join(id)
    }
}

fn remove_folder(folder: &Path) -> Result<(), Fault> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(cannot("remove a container's files")(error))
        }
        _ => Ok(()),
    }
}
