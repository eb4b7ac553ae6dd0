//! What a node has on its machine outside of its data folder, and taking it away: shared by
//! `skep uninstall` and `skep lab down`.

use crate::daemon::resolver;
use crate::process::running;
use anyhow::{Context, Result, bail};
use dataplane::Namespaces as _;
use ipnet::Ipv4Net;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Ends the node's name server, which outlives its daemon. The daemon has to be ended before, or
/// it starts a new one.
pub(crate) async fn end_resolver(run: &Path) -> Result<()> {
    match running(&resolver::pid_file(run), &run.display().to_string()) {
        Some(process) => resolver::end_process(process).await,
        None => Ok(()),
    }
}

/// Removes what the node's data plane made: containers' namespaces, overlays, bridge, tables.
/// `netns` is the namespace that the daemon lived in, where not the caller's.
pub(crate) async fn remove_networks(
    run: &Path,
    gateway_subnet: Ipv4Net,
    netns: Option<&Path>,
) -> Result<()> {
    for file in fs::read_dir(run.join("netns")).into_iter().flatten().flatten() {
        linux::Namespaces.remove(&file.path()).await?;
    }
    let config = crate::daemon::kernel_config(run, gateway_subnet);
    match netns {
        None => linux::Kernel::clean(&config)?,
        Some(netns) if netns.exists() => {
            linux::run_in(netns, || linux::Kernel::clean(&config))??;
        }
        // It went with all that was in it.
        Some(_) => {}
    }
    Ok(())
}

/// Takes the AppArmor profile of containers out of the kernel, unless another daemon of this machine
/// may need it.
pub(crate) fn unload_apparmor() {
    if is_daemon_running() {
        return;
    }
    if let Err(error) = linux::unload_apparmor() {
        tracing::warn!(%error, "the AppArmor profile of containers is left");
    }
}

/// Says whether any daemon runs on this machine: `skep daemon …`.
fn is_daemon_running() -> bool {
    let is_daemon = |program: &str, arguments: &[String]| {
        program.ends_with("skep") && arguments.first().is_some_and(|word| word == "daemon")
    };
    !host::find(is_daemon).is_empty()
}

/// Removes files and folders. What is still mounted below them is unmounted, never emptied.
pub(crate) fn remove_files(paths: &[PathBuf]) -> Result<()> {
    for path in paths {
        containerd::unmount_below(&[path]);
        if let Some(mount) = host::mounts_below(&[path]).first() {
            bail!("{} cannot be unmounted: unmount it, then try again", mount.display());
        }
        let removed = match fs::symlink_metadata(path) {
            Ok(about) if about.is_dir() => fs::remove_dir_all(path),
            Ok(_) => fs::remove_file(path),
            Err(error) => Err(error),
        };
        match removed {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot remove {}", path.display()));
            }
            _ => {}
        }
    }
    Ok(())
}
