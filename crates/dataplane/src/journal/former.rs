//! What former releases wrote: a file for each sandbox and each network, one for the mesh and one
//! for the node itself; before that, two files for all of it. It is taken over once.

use super::Kept;
use crate::error::Error;
use crate::handle::Identity;
use discovery::{Knowledge, Mesh, NetworkView, OrdMap, OrdSet, Sandbox};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use tokio::fs;
use types::{NetworkId, TaskId};

const SUFFIX: &str = "msgpack";
const FILES: [&str; 4] = ["node.msgpack", "mesh.msgpack", "local.msgpack", "knowledge.msgpack"];
const FOLDERS: [&str; 2] = ["sandboxes", "networks"];

#[derive(Default, Deserialize)]
#[serde(default)]
struct Local {
    identity: Option<Identity>,
    sandboxes: OrdMap<String, Sandbox>,
    withdrawn: OrdSet<TaskId>,
}

/// Reads what a former release left; `None` where there is nothing.
pub(super) async fn read(dir: &Path) -> Result<Option<Kept>, Error> {
    let node: Option<Local> = file(&dir.join("node.msgpack")).await?;
    let local: Option<Local> = file(&dir.join("local.msgpack")).await?;
    let mesh: Option<Mesh> = file(&dir.join("mesh.msgpack")).await?;
    let knowledge: Option<Knowledge> = file(&dir.join("knowledge.msgpack")).await?;
    let sandboxes: Option<BTreeMap<String, Sandbox>> = folder(&dir.join("sandboxes")).await?;
    let networks: Option<BTreeMap<NetworkId, NetworkView>> = folder(&dir.join("networks")).await?;
    let is_nothing = node.is_none() && local.is_none() && mesh.is_none() && knowledge.is_none();
    if is_nothing && sandboxes.is_none() && networks.is_none() {
        return Ok(None);
    }
    // Where both are there, the older ones were about to be taken over.
    let Local { identity, sandboxes: mut attached, withdrawn } = local.or(node).unwrap_or_default();
    attached.extend(sandboxes.unwrap_or_default());
    let mut known = knowledge.unwrap_or_default();
    known.networks.extend(networks.unwrap_or_default());
    known.mesh = mesh.unwrap_or(known.mesh);
    Ok(Some(Kept { identity, sandboxes: attached, hidden: withdrawn, known }))
}

/// Where it stands.
pub(super) fn paths(dir: &Path) -> Vec<PathBuf> {
    FILES.iter().chain(&FOLDERS).map(|name| dir.join(name)).collect()
}

async fn folder<K: From<String> + Ord, V: DeserializeOwned>(
    path: &Path,
) -> Result<Option<BTreeMap<K, V>>, Error> {
    let failed = |source: io::Error| Error::Former { path: path.to_owned(), source: source.into() };
    let mut files = match fs::read_dir(path).await {
        Ok(files) => files,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mut all = BTreeMap::new();
    while let Some(entry) = files.next_entry().await.map_err(failed)? {
        let path = entry.path();
        // Not a draft that a crash has left.
        let is_whole = path.extension().is_some_and(|suffix| suffix == SUFFIX);
        let name = path.file_stem().and_then(|name| name.to_str()).filter(|_| is_whole);
        if let Some(name) = name
            && let Some(value) = file(&path).await?
        {
            all.insert(K::from(name.to_owned()), value);
        }
    }
    Ok(Some(all))
}

async fn file<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, Error> {
    let failed = |source| Error::Former { path: path.to_owned(), source };
    match fs::read(path).await {
        Ok(bytes) => msgpack::decode(&bytes).map(Some).map_err(|error| failed(error.into())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(error.into())),
    }
}
