//! Where what a container mounts comes from, while it starts and runs: volumes that are mounted when
//! they are used, paths within volumes, and images.
//!
//! What is shown on the node for the sake of one container's start is taken away again once it has
//! started: the container has its own mounts of it.

use crate::blocking::{blocking, cannot};
use crate::container::Container;
use crate::engine::Engine;
use crate::info::MountPoint;
use crate::volumes::{self, Volume};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use types::{Fault, FaultKind, MountKind};

/// Where the files of volumes are, by their names.
pub(super) type Places = BTreeMap<String, PathBuf>;

impl Engine {
    /// Mounts the volumes of a container that are mounted when they are used; says where each is.
    pub(super) async fn acquire_volumes(&self, container: &Container) -> Result<Places, Fault> {
        // The next engine looks here for what one had mounted that was killed.
        let run = container.run.clone();
        let made = move || fs::create_dir_all(run).map_err(cannot("make a run directory"));
        blocking(made).await?;
        let (mut places, mut told) = (Places::new(), Places::new());
        for volume in self.volumes_of(container).await? {
            let path = self.inner.volume_mounts.acquire(&volume, container.id()).await?;
            // One that was mounted before may not answer any more. Nobody waits for it but this.
            let checks = &self.inner.path_checks;
            if volume.is_mounted_when_used() && !checks.exists(&path).await? {
                let (volume, path) = (volume.name, path.display());
                return Err(Fault::internal(format!(
                    "error while mounting volume '{volume}': there is nothing at {path}"
                )));
            }
            if volume.is_plugins() {
                told.insert(volume.name.clone(), path.clone());
            }
            places.insert(volume.name, path);
        }
        container.state.send_modify(|state| state.volumes = told);
        Ok(places)
    }

    /// Lets go of them. What cannot be unmounted is told, and tried again by the next engine, or, of a
    /// plugin that is not there, when the container is removed.
    pub(super) async fn release_volumes(&self, container: &Container) {
        let volumes = self.volumes_of(container).await.unwrap_or_default();
        for volume in volumes {
            if let Err(fault) = self.inner.volume_mounts.release(&volume, container.id()).await {
                let volume = volume.name;
                tracing::warn!(id = container.id(), volume, %fault, "a volume stays mounted");
            }
        }
    }

    /// Its volumes, each once. One that was removed by force of hand is none.
    async fn volumes_of(&self, container: &Container) -> Result<Vec<Volume>, Fault> {
        let points = container.fixed.mounts.iter();
        let points = points.filter(|point| point.mount.kind == MountKind::Volume);
        let mut names: Vec<String> = points.map(|point| point.mount.source.clone()).collect();
        names.sort();
        names.dedup();
        let volumes = self.inner.volumes.clone();
        blocking(move || {
            let find = |name: String| match volumes.find(&name) {
                Err(fault) if fault.kind == FaultKind::NotFound => None,
                found => Some(found),
            };
            names.into_iter().filter_map(find).collect()
        })
        .await
    }

    /// What a container has mounted, with the place on this node that each comes from.
    pub(super) async fn show_sources(
        &self,
        container: &Container,
        places: &Places,
    ) -> Result<Vec<MountPoint>, Fault> {
        let mut points = container.fixed.mounts.clone();
        for (number, point) in points.iter_mut().enumerate() {
            if let (MountKind::Volume, Some(place)) =
                (point.mount.kind, places.get(&point.mount.source))
            {
                point.source.clone_from(place);
            }
            let at = self.shown_at(container.id(), number);
            if point.mount.kind == MountKind::Image {
                self.show_image(container.id(), number, point, &at).await?;
            } else if !point.mount.subpath.is_empty() {
                let subpath = &point.mount.subpath;
                self.inner.volume_mounts.bind(&point.source, subpath, &at).await?;
                point.source = at;
            }
        }
        Ok(points)
    }

    async fn show_image(
        &self,
        id: &str,
        number: usize,
        point: &mut MountPoint,
        at: &Path,
    ) -> Result<(), Fault> {
        let made = at.to_owned();
        blocking(move || {
            fs::create_dir_all(made).map_err(cannot("make a mount point for an image"))
        })
        .await?;
        let (runtime, image) = (&self.inner.runtime, point.image.clone());
        runtime.mount_image(id.to_owned(), number, image, at.to_owned()).await?;
        at.clone_into(&mut point.source);
        if !point.mount.subpath.is_empty() {
            let within = within(at);
            self.inner.volume_mounts.bind(at, &point.mount.subpath, &within).await?;
            point.source = within;
        }
        Ok(())
    }

    /// Takes away what was shown for a start.
    pub(super) async fn hide_sources(&self, container: &Container) {
        for (number, point) in container.fixed.mounts.iter().enumerate() {
            if point.mount.subpath.is_empty() && point.mount.kind != MountKind::Image {
                continue;
            }
            let at = self.shown_at(container.id(), number);
            for place in [within(&at), at] {
                if let Err(fault) = volumes::take_away(place).await {
                    tracing::warn!(id = container.id(), %fault, "a mount stays until the next start");
                }
            }
        }
    }

    fn shown_at(&self, id: &str, number: usize) -> PathBuf {
        self.mounts_folder().join(format!("{id}.{number}"))
    }

    /// Notes who uses volumes, of the containers that may run.
    pub(super) fn note_volumes(&self, container: &Container) {
        for point in &container.fixed.mounts {
            if point.mount.kind == MountKind::Volume {
                self.inner.volume_mounts.note(&point.mount.source, container.id());
            }
        }
    }

    /// Unmounts the volumes that nobody uses any more.
    pub(super) async fn tidy_volumes(&self) {
        let volumes = self.inner.volumes.clone();
        let all = blocking(move || volumes.list()).await.unwrap_or_default();
        for volume in all.iter().filter(|volume| !volume.is_plugins()) {
            if let Err(fault) = self.inner.volume_mounts.tidy(volume).await {
                tracing::warn!(volume = volume.name, %fault, "a volume that nobody uses stays mounted");
            }
        }
    }
}

/// The place of a path within what is shown at another.
fn within(at: &Path) -> PathBuf {
    let mut path = at.as_os_str().to_owned();
    path.push(".sub");
    path.into()
}
