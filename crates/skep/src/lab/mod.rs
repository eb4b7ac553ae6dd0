//! `skep lab`: a real cluster of several nodes on one machine, in network namespaces.
//!
//! Every node is a daemon of its own in a namespace of its own, on an underlay switch that lives in
//! yet another one (a bridge in the root namespace is at the mercy of the host's firewall). All
//! nodes share one containerd, each with a containerd namespace of its own. Everything here is
//! level-triggered: `up` makes what is missing, `down` removes what is there. Labs of different
//! names are up at the same time and share nothing (`layout` says what is called after the name).

mod down;
mod forward;
mod keep;
mod layout;
mod node;
mod up;

use anyhow::{Context, Result, anyhow, bail};
use clap::{Args, Subcommand, value_parser};
use ipnet::Ipv4Net;
use layout::{DEFAULT, Layout, NODES_MAX, Node};
use std::io::ErrorKind;
use std::path::PathBuf;

#[derive(Args, Debug)]
pub(crate) struct Lab {
    /// Which lab: each name has nodes, folders and a subnet of its own
    #[arg(long, default_value = DEFAULT, value_parser = layout::name, global = true)]
    name: String,
    /// Where the nodes keep what survives [default: /var/lib/skep/lab, or lab-NAME]
    #[arg(long, value_name = "DIR", global = true)]
    data: Option<PathBuf>,
    /// Where the nodes keep sockets and namespaces [default: /run/skep/lab, or lab-NAME]
    #[arg(long, value_name = "DIR", global = true)]
    run: Option<PathBuf>,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand, Debug)]
enum Verb {
    /// Bring a cluster up; what is up already is left as it is
    Up {
        /// How many nodes
        #[arg(long, default_value_t = 3, value_parser = value_parser!(u8).range(1..=NODES_MAX.into()))]
        nodes: u8,
        /// How many of them are managers
        #[arg(long, default_value_t = 1)]
        managers: u8,
        /// The network between the nodes [default: 192.168.100.0/24; for a lab of another name
        /// the next that is free]
        #[arg(long, value_parser = layout::subnet, value_name = "NET")]
        subnet: Option<Ipv4Net>,
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
    Start {
        node: String,
        /// Further options of `skep daemon`, after `--`
        #[arg(last = true, value_name = "OPTION")]
        options: Vec<String>,
    },
    /// Load images from a tar into every node
    Load {
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
    /// Start the lab's containerd anew when it dies (`up` starts it)
    #[command(hide = true)]
    Keep,
    /// Forward localhost to node-1's published ports (`up` starts it)
    #[command(hide = true)]
    Forward,
}

/// Carries out a verb of `skep lab`.
pub(crate) async fn run(lab: Lab) -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("skep lab needs root: it makes network namespaces (try sudo)");
    }
    let mut layout = Layout::new(lab.name, lab.data, lab.run);
    let noted = noted_subnet(&layout)?;
    layout.subnet = noted.or(layout.subnet);
    match lab.verb {
        Verb::Up { nodes, managers, subnet } => {
            if let (Some(wanted), Some(noted)) = (subnet, noted)
                && wanted != noted
            {
                bail!("the lab {} is on {noted}: take it down first", layout.name);
            }
            layout.subnet = subnet.or(layout.subnet);
            up::run(layout, nodes, managers).await
        }
        Verb::Down => down::run(&layout).await,
        Verb::Ls => node::list(&nodes(&layout)?).await,
        Verb::Exec { node, command } => node::exec(&find(&layout, &node)?, &command),
        Verb::Cut { node } => node::cut(&layout, &find(&layout, &node)?),
        Verb::Heal { node } => node::heal(&layout, &find(&layout, &node)?),
        Verb::Kill { node } => node::kill(&find(&layout, &node)?).await,
        Verb::Start { node, options } => {
            node::start(&layout, &find(&layout, &node)?, &options).await
        }
        Verb::Load { files } => node::load(&nodes(&layout)?, &files).await,
        Verb::Keep => keep::run(&layout).await,
        Verb::Forward => forward::run(&layout).await,
    }
}

/// The subnet that the lab had when it was brought up.
fn noted_subnet(layout: &Layout) -> Result<Option<Ipv4Net>> {
    let file = layout.subnet_file();
    match std::fs::read_to_string(&file) {
        Ok(text) => layout::subnet(text.trim())
            .map(Some)
            .map_err(|why| anyhow!("{} is damaged: {why}", file.display())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", file.display())),
    }
}

/// The nodes of a lab that is up.
fn nodes(layout: &Layout) -> Result<Vec<Node>> {
    let nodes = layout.nodes();
    if nodes.is_empty() {
        let name = &layout.name;
        let own = if name == DEFAULT { String::new() } else { format!("--name {name} ") };
        bail!("the lab {name} is not up: run `skep lab {own}up` first");
    }
    Ok(nodes)
}

/// Finds a node of the lab by its name.
fn find(layout: &Layout, name: &str) -> Result<Node> {
    let nodes = nodes(layout)?;
    let names: Vec<&str> = nodes.iter().map(|node| node.name.as_str()).collect();
    let known = names.join(", ");
    let found = nodes.iter().find(|node| node.name == name).cloned();
    found.with_context(|| format!("no node {name} in the lab: there are {known}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        _lab: Lab,
    }

    #[test]
    fn what_makes_no_sense_is_refused_at_once() {
        let read = |words: &str| Line::try_parse_from(["lab"].into_iter().chain(words.split(' ')));
        for good in ["up", "up --nodes 1", "up --nodes 100", "load one.tar two.tar", "ls"] {
            assert!(read(good).is_ok(), "{good}");
        }
        for (bad, what) in [
            ("up --nodes 0", "0 is not in 1..=100"),
            ("up --nodes 300", "300 is not in 1..=100"),
            ("load", "<FILE>..."),
            ("exec node-1", "<COMMAND>..."),
        ] {
            let error = read(bad).unwrap_err().to_string();
            assert!(error.contains(what), "{bad}: {error}");
        }
    }

    #[test]
    fn a_lab_that_is_not_up_is_told_with_what_brings_it_up() {
        for (name, command) in [(DEFAULT, "`skep lab up`"), ("x", "`skep lab --name x up`")] {
            let folder = tempfile::tempdir().unwrap();
            let layout = Layout::new(name.to_owned(), Some(folder.path().join("data")), None);
            let error = nodes(&layout).unwrap_err().to_string();
            assert!(error.contains(command), "{error}");
            assert!(find(&layout, "node-1").unwrap_err().to_string().contains(command));
        }
    }
}
