//! A look into a container's file system before it starts: who its users are, and what its image
//! has where volumes go.

use super::sources::Places;
use crate::blocking::{blocking, cannot};
use crate::container::Container;
use crate::engine::Engine;
use crate::info::MountPoint;
use crate::record;
use crate::rootfs;
use crate::users::User;
use crate::volumes::{self, Volumes};
use std::path::PathBuf;
use types::{Fault, MountKind};

impl Engine {
    /// Finds the user a container runs as, and fills its empty volumes.
    pub(super) async fn look_inside(
        &self,
        container: &Container,
        places: &Places,
    ) -> Result<User, Fault> {
        let at = self.mounts_folder().join(container.id());
        let made = at.clone();
        blocking(move || std::fs::create_dir_all(made).map_err(cannot("make a mount point")))
            .await?;
        self.inner.runtime.mount(container.id().to_owned(), at.clone()).await?;
        let found = look(container, at.clone(), (self.inner.volumes.clone(), places.clone())).await;
        // Unmounted whatever was found: a container must not start while it is mounted here.
        self.inner.runtime.unmount(at.clone()).await?;
        let _left = tokio::fs::remove_dir(at).await;
        found
    }

    /// Undoes what an engine left that died while it looked.
    pub(super) async fn unmount_leftovers(&self) -> Result<(), Fault> {
        let folder = self.mounts_folder();
        let entries = blocking(move || {
            record::private_folder(&folder).map_err(cannot("make a folder for mounts"))?;
            let entries = std::fs::read_dir(&folder).map_err(cannot("list mounts"))?;
            Ok(entries.filter_map(|entry| Some(entry.ok()?.path())).collect::<Vec<_>>())
        });
        for at in entries.await? {
            self.inner.runtime.unmount(at.clone()).await?;
            // Never with what is in it: it may be a container's.
            let _left = volumes::take_away(at).await;
        }
        Ok(())
    }

    pub(super) fn mounts_folder(&self) -> PathBuf {
        self.inner.config.data.join("mounts")
    }
}

async fn look(
    container: &Container,
    root: PathBuf,
    (volumes, places): (Volumes, Places),
) -> Result<User, Fault> {
    let spec = &container.fixed.config.spec;
    let user = if spec.user.is_empty() { &container.image.user } else { &spec.user };
    let (user, groups) = (user.clone(), spec.groups.clone());
    let points: Vec<MountPoint> = container
        .fixed
        .mounts
        .iter()
        .filter(|point| {
            // What is at a path within a volume was put there by somebody.
            let whole = point.mount.subpath.is_empty();
            point.mount.kind == MountKind::Volume && !point.mount.no_copy && whole
        })
        .cloned()
        .collect();
    blocking(move || {
        for point in &points {
            let name = &point.mount.source;
            let path = places.get(name).unwrap_or(&point.source);
            volumes.fill((name, path), &root, &point.mount.target)?;
        }
        let accounts = rootfs::accounts(&root).map_err(cannot("read the container's users"))?;
        accounts.find(&user, &groups)
    })
    .await
}
