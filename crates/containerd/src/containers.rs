//! Containers: the writable snapshot, containerd's record, and what becomes of both.
//!
//! The snapshot is the container: it is there from `prepare` to `delete`. The record only carries
//! the specification to the task and is written anew at every start.

use crate::Containerd;
use crate::client::QUICK;
use crate::error::{Error, Gone};
use crate::mounts;
use containerd_client::services::v1::container::Runtime as RuntimeChoice;
use containerd_client::services::v1::snapshots::ListSnapshotsRequest;
use containerd_client::services::v1::{
    Container, CreateContainerRequest, DeleteContainerRequest, UpdateContainerRequest,
};
use engine::State;
use prost::Message;
use prost_types::Any;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;
use types::Labels;

const RUNTIME: &str = "io.containerd.runc.v2";
const SPEC_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/Spec";
const RUNC_OPTIONS_TYPE: &str = "containerd.runc.v1.Options";
/// Marks a snapshot as a container's, with the container's id.
const CONTAINER_LABEL: &str = "skep.container";
/// Marks a view of an image that a container has mounted, with the container's id.
const VIEW_LABEL: &str = "skep.view-of";
/// Keeps containerd's garbage collector off, while there is no record yet.
const ROOT_LABEL: &str = "containerd.io/gc.root";

/// The part of the runc shim's options that is used.
#[derive(Clone, PartialEq, Message)]
struct RuncOptions {
    #[prost(string, tag = "6")]
    binary_name: String,
    #[prost(string, tag = "7")]
    root: String,
}

impl Containerd {
    /// Makes a container's writable snapshot on an image.
    pub(crate) async fn prepare_container(&self, id: &str, image: &str) -> Result<(), Error> {
        if self.snapshots().exists(id).await? {
            return Ok(());
        }
        let image = self.existing_image(image).await?;
        let parent = self.root_of(&image).await?;
        let mut labels = Labels::new();
        labels.insert(CONTAINER_LABEL.to_owned(), id.to_owned());
        labels.insert(ROOT_LABEL.to_owned(), id.to_owned());
        match self.snapshots().prepare(id, &parent, labels).await {
            Err(error) if !error.is_taken() => Err(error),
            _ => Ok(()),
        }
    }

    pub(crate) async fn mount_container(&self, id: &str, at: PathBuf) -> Result<(), Error> {
        let mounts = mounts::to_read(self.mounts_of(id).await?);
        mounts::beside(move || mounts::mount_at(&mounts, &at)).await
    }

    /// Mounts an image for a container, as its mount of this number.
    pub(crate) async fn mount_image_for(
        &self,
        (id, number): (&str, usize),
        image: &str,
        at: PathBuf,
    ) -> Result<(), Error> {
        let key = format!("{id}.{number}");
        let mounts = match self.snapshots().mounts(&key).await {
            Err(error) if error.is_not_found() => {
                let image = self.existing_image(image).await?;
                let parent = self.root_of(&image).await?;
                let labels = [(VIEW_LABEL, id), (ROOT_LABEL, id)];
                let labels = labels.map(|(name, value)| (name.to_owned(), value.to_owned()));
                self.snapshots().view(&key, &parent, labels.into()).await?
            }
            found => found?,
        };
        mounts::beside(move || mounts::mount_to_run(&mounts, &at)).await
    }

    pub(crate) async fn mounts_of(
        &self,
        id: &str,
    ) -> Result<Vec<containerd_client::types::Mount>, Error> {
        match self.snapshots().mounts(id).await {
            Err(error) if error.is_not_found() => Err(Error::NoContainer(id.to_owned())),
            other => other,
        }
    }

    /// Bytes that a container wrote over its image.
    pub(crate) async fn written_by(&self, id: String) -> Result<u64, Error> {
        match self.snapshots().size(id.clone()).await {
            Err(error) if error.is_not_found() => Err(Error::NoContainer(id)),
            other => other,
        }
    }

    /// Writes the record that a task is made from.
    pub(crate) async fn write_container(&self, id: &str, spec: &Value) -> Result<(), Error> {
        let value = serde_json::to_vec(spec);
        let value = value.map_err(|source| Error::json("the specification", source))?;
        let container = Container {
            id: id.to_owned(),
            runtime: Some(RuntimeChoice {
                name: RUNTIME.to_owned(),
                options: Some(self.runc_options()),
            }),
            spec: Some(Any { type_url: SPEC_TYPE.to_owned(), value }),
            snapshotter: self.snapshotter().to_owned(),
            snapshot_key: id.to_owned(),
            ..Default::default()
        };
        let client = self.client();
        let body = CreateContainerRequest { container: Some(container.clone()) };
        let made = client.call("record a container", QUICK, body);
        match made.await {
            Err(error) if error.is_taken() => {}
            other => return other.map(|_| ()),
        }
        let paths = vec!["spec".to_owned()];
        let body = UpdateContainerRequest {
            container: Some(container),
            update_mask: Some(prost_types::FieldMask { paths }),
        };
        let changed = client.call("record a container", QUICK, body);
        changed.await.map(|_| ())
    }

    fn runc_options(&self) -> Any {
        let text = |path: &Option<PathBuf>| {
            path.as_ref().map(|path| path.to_string_lossy().into_owned()).unwrap_or_default()
        };
        let config = &self.inner.config;
        let options =
            RuncOptions { binary_name: text(&config.oci_runtime), root: text(&config.runc_root) };
        Any { type_url: RUNC_OPTIONS_TYPE.to_owned(), value: options.encode_to_vec() }
    }

    /// Removes a container whole, its record last but for the snapshot: containerd finds the task
    /// by the record, and without it what still runs could be neither seen nor ended. A running task
    /// holds the snapshot, too: without it, its files would go away under it.
    pub(crate) async fn delete_container(&self, id: &str) -> Result<(), Error> {
        self.remove_task(id).await?;
        let client = self.client();
        let body = DeleteContainerRequest { id: id.to_owned() };
        let deleted = client.call("remove a container", QUICK, body);
        let record = deleted.await.or_gone();
        for view in self.snapshots_with(&format!("labels.\"{VIEW_LABEL}\"=={id}")).await? {
            self.snapshots().remove(&view).await?;
        }
        self.snapshots().remove(id).await?;
        record
    }

    /// Our containers. The namespace may have others' as well: what has no snapshot of ours is not
    /// looked at.
    pub(crate) async fn list_containers(&self) -> Result<BTreeMap<String, State>, Error> {
        // The tasks first: a container that is made meanwhile is listed as prepared, and one that
        // is removed meanwhile is not listed.
        let tasks = self.task_states().await?;
        let filter = format!("labels.\"{CONTAINER_LABEL}\"");
        Ok(own(self.snapshots_with(&filter).await?, tasks))
    }

    /// The names of the snapshots that a filter of containerd's finds.
    async fn snapshots_with(&self, filter: &str) -> Result<Vec<String>, Error> {
        let call = "list snapshots";
        let client = self.client();
        let body = ListSnapshotsRequest {
            snapshotter: self.snapshotter().to_owned(),
            filters: vec![filter.to_owned()],
        };
        let answer = client
            .stream(call, QUICK, body, |request| async { client.snapshots().list(request).await });
        let mut stream = answer.await?;
        let mut ids = Vec::new();
        let read = async {
            while let Some(part) = stream.message().await? {
                ids.extend(part.info.into_iter().map(|info| info.name));
            }
            Ok::<(), tonic::Status>(())
        };
        match tokio::time::timeout(QUICK, read).await {
            Ok(Ok(())) => Ok(ids),
            Ok(Err(status)) => Err(Error::Call { call, status: Box::new(status) }),
            Err(_elapsed) => Err(Error::TimedOut { call, limit: QUICK }),
        }
    }

    pub(crate) async fn container_state(&self, id: &str) -> Result<Option<State>, Error> {
        if let Some(state) = self.task_state(id).await? {
            return Ok(Some(state));
        }
        Ok(self.snapshots().exists(id).await?.then_some(State::Prepared))
    }
}

/// Each of our snapshots with the state of its task.
fn own(snapshots: Vec<String>, mut tasks: BTreeMap<String, State>) -> BTreeMap<String, State> {
    let state = |id: String| {
        let state = tasks.remove(&id).unwrap_or(State::Prepared);
        (id, state)
    };
    snapshots.into_iter().map(state).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_of_others_in_the_same_namespace_are_not_listed() {
        let tasks = [("ours", 1), ("theirs", 2)];
        let tasks = tasks.map(|(id, pid)| (id.to_owned(), State::Running { pid })).into();
        let listed = own(vec!["idle".to_owned(), "ours".to_owned()], tasks);
        let expected = [("idle", State::Prepared), ("ours", State::Running { pid: 1 })];
        assert_eq!(listed, expected.map(|(id, state)| (id.to_owned(), state)).into());
    }
}
