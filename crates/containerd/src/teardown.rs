//! The end of an own containerd: containers, shims, the process itself, mounts, leftovers.
//!
//! Every step is right also when an earlier one could not be done, because whoever leaves the
//! cluster or takes the lab down wants nothing left, whatever state things are in.

use crate::client::{Client, QUICK, SPAWNING};
use crate::error::Error;
use crate::process::Directories;
use containerd_client::services::v1::{
    DeleteTaskRequest, KillRequest, ListNamespacesRequest, ListTasksRequest,
};
use futures_util::future::join_all;
use host::Process;
use nix::mount::{MntFlags, umount2};
use nix::sys::signal::Signal;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::process::Command;

const TASKS_END_MAX: Duration = Duration::from_secs(20);
const TERM_MAX: Duration = Duration::from_secs(5);
const KILL_MAX: Duration = Duration::from_secs(5);
const REAP_MAX: Duration = Duration::from_secs(2);
const RUNC_MAX: Duration = Duration::from_secs(10);

/// Ends the containerd of these directories with all its containers, whether or not we started it.
/// Images stay; the state directory is removed. A loop of [`crate::OwnContainerd::keep`] has to be ended
/// before, or it starts a new one.
pub async fn stop(directories: &Directories) -> Result<(), Error> {
    if let Some(process) = directories.running() {
        end_tasks(directories).await;
        end(process).await;
    }
    for shim in shims(&directories.socket()) {
        // The container's processes are children of its shim.
        let containers = shim.children();
        for container in &containers {
            container.signal(Signal::SIGKILL);
        }
        // By their shim: what it does not reap, runc takes for alive.
        for container in containers {
            container.reaped_within(REAP_MAX).await;
        }
        shim.signal(Signal::SIGKILL);
        shim.ended_within(KILL_MAX).await;
    }
    delete_from_runc(directories).await;
    remove_shim_sockets(directories);
    unmount_below(&[&directories.state, &directories.root]);
    if directories.running().is_some() || !shims(&directories.socket()).is_empty() {
        return Err(Error::Stop);
    }
    match fs::remove_dir_all(&directories.state) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::file("remove", &directories.state, error))
        }
        _ => Ok(()),
    }
}

async fn end(process: Process) {
    process.signal(Signal::SIGTERM);
    if !process.ended_within(TERM_MAX).await {
        process.signal(Signal::SIGKILL);
        process.ended_within(KILL_MAX).await;
    }
}

/// Asks containerd to end its tasks: that is the way that also removes cgroups and bundles.
async fn end_tasks(directories: &Directories) {
    let ended = async {
        let client = Client::new(&directories.socket(), "default")?;
        let body = ListNamespacesRequest::default();
        let answer = client.call("list containerd's namespaces", QUICK, body);
        for namespace in answer.await?.namespaces {
            end_tasks_of(&client.within(&namespace.name)?).await?;
        }
        Ok::<(), Error>(())
    };
    match tokio::time::timeout(TASKS_END_MAX, ended).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, "cannot end the tasks; ending their shims"),
        Err(_elapsed) => tracing::warn!("tasks do not end; ending their shims"),
    }
}

async fn end_tasks_of(client: &Client) -> Result<(), Error> {
    let body = ListTasksRequest::default();
    let answer = client.call("list tasks", QUICK, body);
    let tasks = answer.await?.tasks;
    join_all(tasks.iter().map(|task| end_task(client, &task.id))).await;
    Ok(())
}

async fn end_task(client: &Client, id: &str) {
    let body = KillRequest {
        container_id: id.to_owned(),
        signal: Signal::SIGKILL as u32,
        all: true,
        ..Default::default()
    };
    let killed = client.call("kill a task", QUICK, body);
    // A task that has ended cannot be killed, but still has to be deleted.
    let _ended = killed.await;
    let body = containerd_client::services::v1::WaitRequest {
        container_id: id.to_owned(),
        ..Default::default()
    };
    let _exit = client.call("wait for a task", QUICK, body).await;
    let body = DeleteTaskRequest { container_id: id.to_owned() };
    let deleted = client.call("delete a task", SPAWNING, body);
    if let Err(error) = deleted.await {
        tracing::warn!(id, %error, "cannot delete a task");
    }
}

/// The shims of a containerd: they carry its socket on their command line.
pub(crate) fn shims(socket: &Path) -> Vec<Process> {
    host::find(|name, arguments| {
        name.starts_with("containerd-shim") && host::has_flag(arguments, "-address", socket)
    })
}

/// Removes what runc still knows of, with its cgroups: `runc --root DIR delete --force ID`.
async fn delete_from_runc(directories: &Directories) {
    for namespace in entries(&directories.runc_root()) {
        for container in entries(&namespace) {
            let Some(id) = container.file_name() else { continue };
            let mut runc = Command::new("runc");
            runc.arg("--root").arg(&namespace).arg("delete").arg("--force").arg(id);
            runc.kill_on_drop(true);
            match tokio::time::timeout(RUNC_MAX, runc.output()).await {
                Ok(Ok(output)) if output.status.success() => {}
                outcome => tracing::warn!(?id, ?outcome, "runc cannot remove a container"),
            }
        }
    }
}

/// A shim that was killed leaves its socket, which lies outside of our directories.
fn remove_shim_sockets(directories: &Directories) {
    for namespace in entries(&directories.state.join("io.containerd.runtime.v2.task")) {
        for bundle in entries(&namespace) {
            if let Some(socket) = shim_address(&bundle)
                && let Some(socket) = socket.trim().strip_prefix("unix://")
            {
                let _gone = fs::remove_file(socket);
            }
        }
    }
}

/// Where a shim listens: 1.x writes the address alone, 2.x a JSON object.
fn shim_address(bundle: &Path) -> Option<String> {
    if let Ok(address) = fs::read_to_string(bundle.join("address")) {
        return Some(address);
    }
    let bootstrap = fs::read(bundle.join("bootstrap.json")).ok()?;
    let bootstrap: serde_json::Value = serde_json::from_slice(&bootstrap).ok()?;
    Some(bootstrap.get("address")?.as_str()?.to_owned())
}

/// Unmounts everything below these directories, the deepest first; what is in use goes when it is
/// not any more.
pub fn unmount_below(directories: &[&Path]) {
    for mount in host::mounts_below(directories) {
        if let Err(error) = umount2(&mount, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
            tracing::warn!(mount = %mount.display(), %error, "cannot unmount");
        }
    }
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}
