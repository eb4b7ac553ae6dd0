//! Docker's verbs, for machines without a docker CLI: same words, same columns.
//!
//! Each verb calls the Engine API and renders what it answers; it knows nothing that another
//! client could not know.

mod container;
mod human;
mod image;
mod network;
mod node;
mod progress;
mod query;
mod service;
mod show;
mod stack;
mod streams;
mod swarm;
mod system;
mod table;
mod tasks;
mod template;

use crate::client::Client;
use anyhow::Result;
use clap::{Args, Subcommand};
use std::io::Write;
use std::process::ExitCode;

/// Where the API is.
#[derive(Args, Debug)]
pub(crate) struct Host {
    /// The daemon to speak to
    #[arg(
        short = 'H',
        long = "host",
        env = "DOCKER_HOST",
        default_value = "unix:///run/skep/docker.sock",
        global = true,
        value_name = "unix://PATH"
    )]
    host: String,
}

#[derive(Subcommand, Debug)]
pub(crate) enum Verb {
    /// Manage the cluster
    Swarm(Group<swarm::Verb>),
    /// Manage nodes
    Node(Group<node::Verb>),
    /// Manage services
    Service(Group<service::Verb>),
    /// Manage stacks
    Stack(Group<stack::Verb>),
    /// Manage networks
    Network(Group<network::Verb>),
    /// Show the version of client and daemon
    Version(system::Version),
    /// Show what the daemon is
    Info(system::Info),
    /// List containers of this node
    Ps(container::Ps),
    /// Show the logs of a container
    Logs(container::Logs),
    /// Show a container or an image as JSON
    Inspect(container::Inspect),
    /// Run a command in a running container
    Exec(container::Exec),
    /// Stop containers
    Stop(container::Stop),
    /// Kill containers
    Kill(container::Kill),
    /// Remove containers
    Rm(container::Rm),
    /// List images of this node
    Images(image::Images),
    /// Load images from a tar
    Load(image::Load),
    /// Pull an image
    Pull(image::Pull),
    /// Remove images
    Rmi(image::Rmi),
}

/// A group of verbs on one noun.
#[derive(Args, Debug)]
pub(crate) struct Group<V: Subcommand> {
    #[command(subcommand)]
    verb: V,
    #[command(flatten)]
    host: Host,
}

impl Host {
    pub(crate) fn client(&self) -> Result<Client> {
        Client::at(&self.host)
    }
}

/// Carries out a verb.
pub(crate) async fn run(verb: Verb) -> Result<ExitCode> {
    let done = |result: Result<()>| result.map(|()| ExitCode::SUCCESS);
    match verb {
        Verb::Swarm(group) => done(swarm::run(&group.host.client()?, group.verb).await),
        Verb::Node(group) => done(node::run(&group.host.client()?, group.verb).await),
        Verb::Service(group) => done(service::run(&group.host.client()?, group.verb).await),
        Verb::Stack(group) => done(stack::run(&group.host.client()?, group.verb).await),
        Verb::Network(group) => done(network::run(&group.host.client()?, group.verb).await),
        Verb::Version(verb) => done(verb.run().await),
        Verb::Info(verb) => done(verb.run().await),
        Verb::Ps(verb) => done(verb.run().await),
        Verb::Logs(verb) => done(verb.run().await),
        Verb::Inspect(verb) => done(verb.run().await),
        Verb::Exec(verb) => verb.run().await,
        Verb::Stop(verb) => done(verb.run().await),
        Verb::Kill(verb) => done(verb.run().await),
        Verb::Rm(verb) => done(verb.run().await),
        Verb::Images(verb) => done(verb.run().await),
        Verb::Load(verb) => done(verb.run().await),
        Verb::Pull(verb) => done(verb.run().await),
        Verb::Rmi(verb) => done(verb.run().await),
    }
}

/// What every list takes.
#[derive(Args, Debug)]
pub(crate) struct Listing {
    /// Show only what fits, KEY=VALUE
    #[arg(short, long, value_name = "FILTER")]
    filter: Vec<String>,
    /// Write the list by a template, or as `json`
    #[arg(long, value_name = "TEMPLATE")]
    format: Option<String>,
    /// Show ids alone
    #[arg(short, long)]
    quiet: bool,
    /// Show whole ids
    #[arg(long)]
    no_trunc: bool,
}

/// An error that was told already: the exit code alone is left.
#[derive(Debug, thiserror::Error)]
#[error("")]
struct Silent;

/// Writes a line to standard output.
pub(crate) fn say(text: &str) {
    print(&format!("{text}\n"));
}

/// Writes text to standard output. Whoever closed it does not want it.
pub(crate) fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let _closed = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Writes a line to standard error.
pub(crate) fn warn(text: &str) {
    let _closed = writeln!(std::io::stderr().lock(), "{text}");
}

/// Writes an error with its causes to standard error.
pub(crate) fn complain(error: &anyhow::Error) {
    if !error.is::<Silent>() {
        warn(&format!("{error:#}"));
    }
}
