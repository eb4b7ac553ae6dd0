//! From layers to snapshots: each layer is applied on top of the one below and kept under the name
//! of its chain.

use crate::client::{BULKY, Client, QUICK};
use crate::error::{Error, Gone};
use crate::free_space;
use crate::oci::{self, Descriptor};
use containerd_client::services::v1::ApplyRequest;
use containerd_client::services::v1::snapshots::{
    CommitSnapshotRequest, MountsRequest, PrepareSnapshotRequest, RemoveSnapshotRequest,
    StatSnapshotRequest, UsageRequest, ViewSnapshotRequest,
};
use containerd_client::types::Mount;
use engine::ByName;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::Mutex;
use types::Labels;

/// The kernel's overlay takes no more.
pub(crate) const LAYERS_MAX: usize = 500;

/// A client together with the snapshotter it uses.
#[derive(Clone, Debug)]
pub(crate) struct Snapshots {
    pub(crate) client: Client,
    pub(crate) name: String,
    /// Layers that are being unpacked, by the names of their chains: those of two images may be the
    /// same, and have one unfinished snapshot. It has a fixed name, so that the one of a daemon
    /// that died is found and removed.
    unpacking: Arc<ByName<Mutex<()>>>,
}

impl Snapshots {
    pub(crate) fn new(client: Client, name: String) -> Self {
        Self { client, name, unpacking: Arc::default() }
    }

    /// The same snapshotter by another client, e.g. one with a lease.
    pub(crate) fn through(&self, client: Client) -> Self {
        Self { client, ..self.clone() }
    }

    /// Makes the snapshots of an image, as far as they are missing. Returns the highest one's name.
    pub(crate) async fn unpack(
        &self,
        layers: &[Descriptor],
        diff_ids: &[String],
        mut done: impl FnMut(&Descriptor),
    ) -> Result<String, Error> {
        if layers.len() != diff_ids.len() {
            let (layers, diffs) = (layers.len(), diff_ids.len());
            let reason = format!("it has {layers} layers, but its configuration names {diffs}");
            return Err(Error::Archive(reason));
        }
        if LAYERS_MAX < layers.len() {
            return Err(Error::Archive(format!("it has more than {LAYERS_MAX} layers")));
        }
        let chain = oci::chain_ids(diff_ids);
        let mut parent = String::new();
        for ((layer, diff), name) in layers.iter().zip(diff_ids).zip(&chain) {
            let unpacking = self.unpacking.get(name, Mutex::default);
            let _turn = unpacking.lock().await;
            if !self.exists(name).await? {
                let key = format!("skep-unpack-{name}");
                self.remove(&key).await?;
                let outcome = self.unpack_layer(layer, diff, &key, &parent).await;
                let kept = match outcome {
                    Ok(()) => self.commit(&key, name).await,
                    Err(error) => Err(error),
                };
                if kept.is_err() {
                    self.remove(&key).await?;
                }
                kept?;
            }
            done(layer);
            parent.clone_from(name);
        }
        Ok(parent)
    }

    /// Applies a layer to a new snapshot, and checks what came out.
    async fn unpack_layer(
        &self,
        layer: &Descriptor,
        diff: &str,
        key: &str,
        parent: &str,
    ) -> Result<(), Error> {
        let mounts = self.prepare(key, parent, Labels::new()).await?;
        let target = written_to(&mounts);
        if let Some(target) = &target {
            free_space::check_async(target, layer.size).await?;
        }
        let body = ApplyRequest { diff: Some(layer.into()), mounts, ..Default::default() };
        let client = &self.client;
        let answer = client.call("unpack a layer", BULKY, body);
        // What a layer becomes is not known before: a few bytes can be very many.
        let full = async {
            match &target {
                Some(target) => free_space::watch_until_full(target).await,
                None => std::future::pending().await,
            }
        };
        let answer = tokio::select! {
            answer = answer => answer?,
            error = full => return Err(error),
        };
        let found = answer.applied.unwrap_or_default().digest;
        if found != diff {
            let reason = format!("unpacked it is {found}, not {diff}");
            return Err(Error::Digest { expected: layer.digest.clone(), reason });
        }
        Ok(())
    }

    async fn commit(&self, key: &str, name: &str) -> Result<(), Error> {
        let client = &self.client;
        let body = CommitSnapshotRequest {
            snapshotter: self.name.clone(),
            name: name.to_owned(),
            key: key.to_owned(),
            ..Default::default()
        };
        let answer = client.call("keep an unpacked layer", BULKY, body);
        answer.await
    }

    pub(crate) async fn prepare(
        &self,
        key: &str,
        parent: &str,
        labels: Labels,
    ) -> Result<Vec<Mount>, Error> {
        let client = &self.client;
        let body = PrepareSnapshotRequest {
            snapshotter: self.name.clone(),
            key: key.to_owned(),
            parent: parent.to_owned(),
            labels: labels.into_iter().collect(),
        };
        let answer = client.call("make a snapshot", BULKY, body);
        Ok(answer.await?.mounts)
    }

    /// Makes a snapshot that is only read.
    pub(crate) async fn view(
        &self,
        key: &str,
        parent: &str,
        labels: Labels,
    ) -> Result<Vec<Mount>, Error> {
        let client = &self.client;
        let body = ViewSnapshotRequest {
            snapshotter: self.name.clone(),
            key: key.to_owned(),
            parent: parent.to_owned(),
            labels: labels.into_iter().collect(),
        };
        let answer = client.call("make a view of a snapshot", BULKY, body);
        Ok(answer.await?.mounts)
    }

    pub(crate) async fn mounts(&self, key: &str) -> Result<Vec<Mount>, Error> {
        let client = &self.client;
        let body = MountsRequest { snapshotter: self.name.clone(), key: key.to_owned() };
        let answer = client.call("look up a snapshot's mounts", QUICK, body);
        Ok(answer.await?.mounts)
    }

    pub(crate) async fn exists(&self, name: &str) -> Result<bool, Error> {
        let client = &self.client;
        let body = StatSnapshotRequest { snapshotter: self.name.clone(), key: name.to_owned() };
        let answer = client.call("look for a snapshot", QUICK, body);
        match answer.await {
            Ok(_) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Removes a snapshot. That it is not there is fine.
    pub(crate) async fn remove(&self, key: &str) -> Result<(), Error> {
        let client = &self.client;
        let body = RemoveSnapshotRequest { snapshotter: self.name.clone(), key: key.to_owned() };
        let answer = client.call("remove a snapshot", BULKY, body);
        answer.await.or_gone()
    }

    /// What the snapshots of these layers take on the disk.
    pub(crate) async fn usage(&self, diff_ids: &[String]) -> Result<u64, Error> {
        let mut bytes = 0;
        for key in oci::chain_ids(diff_ids) {
            bytes += self.size(key).await?;
        }
        Ok(bytes)
    }

    /// What one snapshot takes on the disk.
    pub(crate) async fn size(&self, key: String) -> Result<u64, Error> {
        let client = &self.client;
        let body = UsageRequest { snapshotter: self.name.clone(), key };
        let answer = client.call("measure a snapshot", BULKY, body);
        Ok(u64::try_from(answer.await?.size).unwrap_or(0))
    }
}

/// The folder that a layer's files are written to: of an overlay its upper one, of the lowest layer
/// the bind's source.
fn written_to(mounts: &[Mount]) -> Option<PathBuf> {
    let last = mounts.last()?;
    let upper = last.options.iter().find_map(|option| option.strip_prefix("upperdir="));
    let path = Path::new(upper.unwrap_or(&last.source));
    path.is_absolute().then(|| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_is_written_to_the_upper_folder_or_to_the_source_of_a_bind() {
        let mount = |source: &str, options: &[&str]| Mount {
            source: source.to_owned(),
            options: options.iter().map(|option| (*option).to_owned()).collect(),
            ..Mount::default()
        };
        let overlay = mount("overlay", &["workdir=/w", "upperdir=/s/3/fs", "lowerdir=/s/2/fs"]);
        assert_eq!(written_to(&[overlay]), Some("/s/3/fs".into()));
        assert_eq!(written_to(&[mount("/s/1/fs", &["rw", "rbind"])]), Some("/s/1/fs".into()));
        assert_eq!(written_to(&[mount("overlay", &[])]), None);
        assert_eq!(written_to(&[]), None);
    }
}
