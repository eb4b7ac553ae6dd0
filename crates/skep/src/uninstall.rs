//! `skep uninstall`: takes everything of this machine's node off it, whatever state it is in.
//!
//! Images, volumes and the place in a cluster are data: they stay unless they are asked for.

use crate::daemon::options::{CGROUP_PARENT, CONTAINERD_NAMESPACE, DATA, GATEWAY_SUBNET, RUN};
use crate::daemon::{self, docker_socket};
use crate::noted_options::NotedOptions;
use crate::{cgroup, remains};
use anyhow::{Context, Result, bail};
use clap::Args;
use ipnet::Ipv4Net;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Options of `skep uninstall`. What is not said is as the daemon had it that was here last.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// Where the daemon kept its state
    #[arg(long, default_value = DATA, value_name = "DIR")]
    data: PathBuf,
    /// Where the daemon kept sockets, namespaces and pipes
    #[arg(long, value_name = "DIR")]
    run: Option<PathBuf>,
    /// The network namespace that the daemon lived in
    #[arg(long, value_name = "FILE")]
    netns: Option<PathBuf>,
    /// The socket of the containerd that the daemon used, where that was not its own
    #[arg(long, value_name = "SOCKET")]
    containerd: Option<PathBuf>,
    /// The containerd namespace of the node's containers
    #[arg(long, value_name = "NAME")]
    containerd_namespace: Option<String>,
    /// The subnet of the bridge by which containers reached the outside
    #[arg(long, value_name = "NET")]
    gateway_subnet: Option<Ipv4Net>,
    /// The cgroup above the containers' own
    #[arg(long, value_name = "PATH")]
    cgroup_parent: Option<String>,
    /// The path at which the daemon answered as Docker
    #[arg(long, value_name = "PATH")]
    docker_socket: Option<PathBuf>,
    /// Also remove the data: images, volumes with all that is in them, the place in a cluster
    #[arg(long)]
    purge: bool,
}

impl Options {
    /// What is said here, what the daemon noted, and what it has where nobody says anything.
    fn noted(&self) -> Result<NotedOptions> {
        let noted = NotedOptions::read(&self.data)?.unwrap_or_else(|| NotedOptions {
            run: RUN.into(),
            netns: None,
            containerd: None,
            containerd_namespace: CONTAINERD_NAMESPACE.to_owned(),
            gateway_subnet: GATEWAY_SUBNET,
            cgroup_parent: CGROUP_PARENT.to_owned(),
            docker_socket: Some("/var/run/docker.sock".into()),
        });
        let said = self.clone();
        Ok(NotedOptions {
            run: said.run.unwrap_or(noted.run),
            netns: said.netns.or(noted.netns),
            containerd: said.containerd.or(noted.containerd),
            containerd_namespace: said.containerd_namespace.unwrap_or(noted.containerd_namespace),
            gateway_subnet: said.gateway_subnet.unwrap_or(noted.gateway_subnet),
            cgroup_parent: said.cgroup_parent.unwrap_or(noted.cgroup_parent),
            docker_socket: said.docker_socket.or(noted.docker_socket),
        })
    }
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
    let noted = options.noted()?;
    println!("==> containers");
    remains::end_resolver(&noted.run).await?;
    if let Some(socket) = &noted.containerd {
        containerd::leave(socket, &noted.containerd_namespace, options.purge).await.with_context(
            || format!("cannot end the containers in the containerd at {}", socket.display()),
        )?;
    }
    let directories = daemon::own_containerd(&options.data, &noted.run);
    containerd::stop(&directories).await.context("cannot stop the containers")?;
    println!("==> networks");
    remains::remove_networks(&noted.run, noted.gateway_subnet, noted.netns.as_deref())
        .await
        .context("cannot remove the networks")?;
    println!("==> files");
    cgroup::remove(&noted.cgroup_parent)?;
    if let Some(path) = &noted.docker_socket {
        docker_socket::remove(path, &noted.run.join("docker.sock"))?;
    }
    remains::unload_apparmor();
    remove_folder(&noted.run)?;
    if options.purge {
        remove_folder(&options.data)?;
    } else if options.data.is_dir() {
        // Volumes with options, which no container uses any more.
        containerd::unmount_below(&[&options.data]);
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
