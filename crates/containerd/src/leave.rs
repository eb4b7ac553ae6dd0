//! Leaving a containerd of somebody else's: it goes on, and has nothing of ours any more.

use crate::client::QUICK;
use crate::error::{Error, Gone};
use crate::{Config, Containerd, teardown};
use containerd_client::services::v1::DeleteNamespaceRequest;
use futures_util::future::join_all;
use std::path::Path;
use tonic::Code;

/// Ends our containers in a namespace of the containerd at `socket`. With `purge` they are removed,
/// as our images are, and the namespace where nobody else has anything in it.
///
/// It is fine if that containerd is no more; while its containers go on, it has to be there.
///
/// # Errors
/// Where containerd does not answer, or a container does not end.
pub async fn leave(socket: &Path, namespace: &str, purge: bool) -> Result<(), Error> {
    if !socket.exists() && teardown::shims(socket).is_empty() {
        return Ok(());
    }
    let config =
        Config { socket: socket.to_owned(), namespace: namespace.to_owned(), ..Config::default() };
    let containerd = Containerd::connect(config).await?;
    let ids = containerd.list_containers().await?.into_keys();
    let end = |id: String| {
        let containerd = &containerd;
        async move {
            if purge {
                containerd.delete_container(&id).await
            } else {
                containerd.remove_task(&id).await
            }
        }
    };
    join_all(ids.map(end)).await.into_iter().collect::<Result<(), Error>>()?;
    if !purge {
        return Ok(());
    }
    containerd.remove_own_images().await?;
    let client = containerd.client();
    let body = DeleteNamespaceRequest { name: namespace.to_owned() };
    let deleted = client.call("remove the containerd namespace", QUICK, body);
    match deleted.await.or_gone() {
        // Others have something in it.
        Err(error) if error.code() == Some(Code::FailedPrecondition) => Ok(()),
        other => other,
    }
}
