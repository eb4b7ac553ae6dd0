//! `skep lab`: a real cluster of several nodes on one machine, in network namespaces.
//!
//! Every node is a daemon of its own in a namespace of its own, on an underlay switch that lives in
//! yet another one (a bridge in the root namespace is at the mercy of the host's firewall). All
//! nodes share one containerd, each with a containerd namespace of its own. Everything here is
//! level-triggered: `up` makes what is missing, `down` removes what is there.

mod down;
mod forward;
mod layout;
mod node;
mod up;

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use layout::{Layout, Place};
use std::path::PathBuf;

#[derive(Args, Debug)]
pub(crate) struct Lab {
    /// Where the nodes keep what survives
    #[arg(long, default_value = "/var/lib/skep/lab", value_name = "DIR", global = true)]
    data: PathBuf,
    /// Where the nodes keep sockets and namespaces
    #[arg(long, default_value = "/run/skep/lab", value_name = "DIR", global = true)]
    run: PathBuf,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand, Debug)]
enum Verb {
    /// Bring a cluster up; what is up already is left as it is
    Up {
        /// How many nodes
        #[arg(long, default_value_t = 3)]
        nodes: u8,
        /// How many of them are managers (this version runs one)
        #[arg(long, default_value_t = 1)]
        managers: u8,
    },
    /// Take the cluster down and remove all that belongs to it
    Down,
    /// Show the nodes of the lab
    Ls,
    /// Run a command in a node's network namespace
    Exec {
        node: String,
        #[arg(trailing_var_arg = true, required = true)]
        command: Vec<String>,
    },
    /// Unplug a node from the underlay
    Cut { node: String },
    /// Plug a node in again
    Heal { node: String },
    /// End a node's daemon by SIGKILL; its containers go on
    Kill { node: String },
    /// Start a node's daemon again
    Start { node: String },
    /// Load images from a tar into every node
    Load { files: Vec<PathBuf> },
    /// Forward localhost to node-1's published ports (`up` starts it)
    #[command(hide = true)]
    Forward,
}

/// Carries out a verb of `skep lab`.
pub(crate) async fn run(lab: Lab) -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("skep lab needs root: it makes network namespaces (try sudo)");
    }
    let layout = Layout { data: lab.data, run: lab.run };
    match lab.verb {
        Verb::Up { nodes, managers } => up::run(&layout, nodes, managers).await,
        Verb::Down => down::run(&layout).await,
        Verb::Ls => node::list(&layout).await,
        Verb::Exec { node, command } => node::exec(&place(&layout, &node)?, &command),
        Verb::Cut { node } => node::cut(&place(&layout, &node)?),
        Verb::Heal { node } => node::heal(&place(&layout, &node)?),
        Verb::Kill { node } => node::kill(&place(&layout, &node)?).await,
        Verb::Start { node } => node::start(&layout, &place(&layout, &node)?).await,
        Verb::Load { files } => node::load(&layout, &files).await,
        Verb::Forward => forward::run(&layout).await,
    }
}

/// Finds a node of the lab by its name.
fn place(layout: &Layout, name: &str) -> Result<Place> {
    let places = layout.places();
    if places.is_empty() {
        bail!("the lab is not up: run `skep lab up` first");
    }
    let names: Vec<&str> = places.iter().map(|place| place.name.as_str()).collect();
    let known = names.join(", ");
    let found = places.iter().find(|place| place.name == name).cloned();
    found.with_context(|| format!("no node {name} in the lab: there are {known}"))
}
