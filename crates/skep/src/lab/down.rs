//! `skep lab down`: removes everything that belongs to the lab, whatever state it is in.

use super::layout::Layout;
use super::node;
use crate::daemon::options::GATEWAY_SUBNET;
use crate::process::{end, running};
use crate::{cgroup, remains};
use anyhow::{Context, Result};
use nix::sys::signal::Signal;

#[expect(clippy::print_stdout, reason = "progress for the user")]
pub(super) async fn run(layout: &Layout) -> Result<()> {
    println!("==> daemons");
    // The keeper would start containerd again.
    for pid_file in [layout.forwarder_pid(), layout.keeper_pid()] {
        if let Some(process) = running(&pid_file, &layout.run.display().to_string()) {
            end(process, Signal::SIGKILL).await?;
        }
    }
    // SIGKILL: the daemons have nothing to put in order that is not removed below.
    for node in layout.nodes() {
        if let Some(daemon) = node::daemon(&node) {
            end(daemon, Signal::SIGKILL).await?;
        }
        // After its daemon, which would start it again.
        remains::end_resolver(&node.run).await?;
    }
    println!("==> containers");
    containerd::stop(&layout.containerd()).await.context("cannot stop the lab's containerd")?;
    println!("==> networks");
    for node in layout.nodes() {
        let netns = node.netns();
        remains::remove_networks(&node.run, GATEWAY_SUBNET, Some(&netns))
            .await
            .with_context(|| format!("cannot clean {}", node.name))?;
    }
    layout.underlay().down().context("cannot remove the lab's underlay")?;
    println!("==> files");
    cgroup::remove(&layout.cgroup())?;
    remains::unload_apparmor();
    remains::remove_files(&[layout.run.clone(), layout.data.clone()])?;
    println!("==> the lab is down");
    Ok(())
}
