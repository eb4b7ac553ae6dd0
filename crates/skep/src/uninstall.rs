//! `skep uninstall`: takes everything of this machine's node off it, whatever state it is in.
//!
//! Images, volumes and the place in a cluster are data: they stay unless they are asked for.

use crate::daemon::{self, GATEWAY_SUBNET, docker_socket};
use crate::{cgroup, remains};
use anyhow::{Context, Result, bail};
use clap::Args;
use ipnet::Ipv4Net;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Options of `skep uninstall`. Those of the daemon that it was started with belong here, too.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// Where the daemon kept its state
    #[arg(long, default_value = "/var/lib/skep", value_name = "DIR")]
    data: PathBuf,
    /// Where the daemon kept sockets, namespaces and pipes
    #[arg(long, default_value = "/run/skep", value_name = "DIR")]
    run: PathBuf,
    /// The network namespace that the daemon lived in [default: the one this is started in]
    #[arg(long, value_name = "FILE")]
    netns: Option<PathBuf>,
    /// The subnet of the bridge by which containers reached the outside
    #[arg(long, default_value_t = GATEWAY_SUBNET, value_name = "NET")]
    gateway_subnet: Ipv4Net,
    /// The cgroup above the containers' own
    #[arg(long, default_value = "/skep", value_name = "PATH")]
    cgroup_parent: String,
    /// The path at which the daemon answered as Docker
    #[arg(long, default_value = "/var/run/docker.sock", value_name = "PATH")]
    docker_socket: PathBuf,
    /// Also remove the data: images, volumes with all that is in them, the place in a cluster
    #[arg(long)]
    purge: bool,
}

/// Removes all of it, or says what is in the way.
#[expect(clippy::print_stdout, reason = "progress for the user")]
pub(crate) async fn run(options: Options) -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("skep uninstall needs root: it removes namespaces and network rules (try sudo)");
    }
    let _no_daemon = if options.data.is_dir() {
        Some(daemon::lock(&options.data).context("stop the daemon first")?)
    } else {
        None
    };
    println!("==> containers");
    remains::end_resolver(&options.run).await?;
    let place = daemon::own_containerd(&options.data, &options.run);
    containerd::stop(&place).await.context("cannot stop the containers")?;
    println!("==> networks");
    remains::remove_networks(&options.run, options.gateway_subnet, options.netns.as_deref())
        .await
        .context("cannot remove the networks")?;
    println!("==> files");
    cgroup::remove(&options.cgroup_parent)?;
    docker_socket::remove(&options.docker_socket, &options.run.join("docker.sock"))?;
    remove_folder(&options.run)?;
    if options.purge {
        remove_folder(&options.data)?;
    } else if options.data.is_dir() {
        println!("    the data in {} stays; --purge removes it", options.data.display());
    }
    if daemon::is_member(&options.data) {
        println!("    this node is still in a cluster, which sees it as down:");
        println!("    `docker node rm` at a manager takes it out");
    }
    println!(
        "==> nothing of skep is left but the program{}",
        if options.purge { "" } else { " and the data" }
    );
    Ok(())
}

/// Removes a folder of the daemon's. Labs keep theirs in it: `skep lab down` removes those.
fn remove_folder(folder: &Path) -> Result<()> {
    let Ok(entries) = fs::read_dir(folder) else { return Ok(()) };
    let (labs, ours): (Vec<PathBuf>, Vec<PathBuf>) =
        entries.flatten().map(|entry| entry.path()).partition(|path| is_lab(path));
    remains::remove_files(&ours)?;
    match fs::remove_dir(folder) {
        // A file system of its own is mounted there.
        Err(error) if labs.is_empty() && error.kind() != ErrorKind::ResourceBusy => {
            Err(error).with_context(|| format!("cannot remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}

fn is_lab(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.is_dir() && (name == "lab" || name.starts_with("lab-"))
}
