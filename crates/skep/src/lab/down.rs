//! `skep lab down`: removes everything that belongs to the lab, whatever state it is in.

use super::layout::{Layout, Place};
use super::node;
use crate::cgroup;
use crate::process::{end, running};
use anyhow::{Context, Result};
use dataplane::Namespaces as _;
use nix::sys::signal::Signal;
use std::fs;
use std::io::ErrorKind;

#[expect(clippy::print_stdout, reason = "progress for the user")]
pub(super) async fn run(layout: &Layout) -> Result<()> {
    println!("==> daemons");
    let forwarder = running(&layout.forwarder_pid(), &layout.run.display().to_string());
    if let Some(pid) = forwarder {
        end(pid, Signal::SIGKILL).await?;
    }
    // SIGKILL: the daemons have nothing to put in order that is not removed below.
    for place in layout.places() {
        if let Some(pid) = node::daemon(&place) {
            end(pid, Signal::SIGKILL).await?;
        }
        // After its daemon, which would start it again.
        if let Some(pid) = node::resolver(&place) {
            end(pid, Signal::SIGKILL).await?;
        }
    }
    println!("==> containers");
    containerd::stop(&layout.containerd()).await.context("cannot stop the lab's containerd")?;
    println!("==> networks");
    for place in layout.places() {
        clean(&place).await.with_context(|| format!("cannot clean {}", place.name))?;
    }
    layout.underlay().down().context("cannot remove the lab's underlay")?;
    println!("==> files");
    cgroup::remove(&layout.cgroup())?;
    for folder in [&layout.run, &layout.data] {
        match fs::remove_dir_all(folder) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot remove {}", folder.display()));
            }
            _ => {}
        }
    }
    println!("==> the lab is down");
    Ok(())
}

/// Removes what a node's data plane made.
async fn clean(place: &Place) -> Result<()> {
    for file in fs::read_dir(place.run.join("netns")).into_iter().flatten().flatten() {
        linux::Namespaces.remove(&file.path()).await?;
    }
    let config = crate::daemon::kernel_config(&place.run, crate::daemon::GATEWAY_SUBNET);
    if place.netns().exists() {
        linux::run_in(&place.netns(), || linux::Kernel::clean(&config))??;
    }
    Ok(())
}
