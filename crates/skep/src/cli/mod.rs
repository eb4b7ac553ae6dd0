//! Docker's verbs, for machines without a docker CLI: same words, same columns.
//!
//! Each verb calls the Engine API and renders what it answers; it knows nothing that another
//! client could not know.

mod container;
mod file;
mod human;
mod image;
mod lines;
mod network;
mod node;
mod plan;
mod progress;
mod query;
mod raft;
mod registry;
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
        id = "api",
        short = 'H',
        env = "DOCKER_HOST",
        default_value = crate::daemon::options::API,
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
    /// Look after the managers' log
    Raft(Group<raft::Verb>),
    /// Manage services
    Service(Group<service::Verb>),
    /// Manage stacks
    Stack(Group<stack::Verb>),
    /// Manage networks
    Network(Group<network::Verb>),
    /// Manage secrets
    Secret(Group<file::Verb>),
    /// Manage configs
    Config(Group<file::Verb>),
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
        Verb::Raft(group) => done(raft::run(&group.host.client()?, group.verb).await),
        Verb::Service(group) => service::run(&group.host.client()?, group.verb).await,
        Verb::Stack(group) => stack::run(&group.host.client()?, group.verb).await,
        Verb::Network(group) => done(network::run(&group.host.client()?, group.verb).await),
        Verb::Secret(group) => {
            done(file::run::<types::Secret>(&group.host.client()?, group.verb).await)
        }
        Verb::Config(group) => {
            done(file::run::<types::Config>(&group.host.client()?, group.verb).await)
        }
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
    /// Show whole ids and texts
    #[arg(long)]
    no_trunc: bool,
}

impl Listing {
    /// Writes the list as its user wants it.
    fn print(&self, list: &table::List) -> Result<()> {
        print(&if self.quiet { list.quiet("ID") } else { list.render(self.format.as_deref())? });
        Ok(())
    }
}

/// An error that was told already: the exit code alone is left.
#[derive(Debug, thiserror::Error)]
#[error("")]
struct Silent;

/// Does something with each of several objects; goes on after one that fails, as docker does, and
/// fails in the end.
///
/// # Errors
/// Where one failed: what is wrong was told with it.
async fn each(names: &[String], mut work: impl AsyncFnMut(&str) -> Result<()>) -> Result<()> {
    let mut failed = false;
    for name in names {
        if let Err(error) = work(name).await {
            complain(&error);
            failed = true;
        }
    }
    if failed { Err(Silent.into()) } else { Ok(()) }
}

/// What came of several names, and what is wrong with the others: as docker does, one that fails
/// keeps nothing from the rest, and all that is wrong is told in the end.
struct Several<T> {
    found: Vec<T>,
    wrong: Vec<anyhow::Error>,
}

async fn several<T>(names: &[String], mut find: impl AsyncFnMut(&str) -> Result<T>) -> Several<T> {
    let mut several = Several { found: Vec::new(), wrong: Vec::new() };
    for name in names {
        match find(name).await {
            Ok(found) => several.found.push(found),
            Err(error) => several.wrong.push(error),
        }
    }
    several
}

impl<T> Several<T> {
    /// Whether there is something to go on with: something was found, or nothing is wrong.
    fn is_some(&self) -> bool {
        !self.found.is_empty() || self.wrong.is_empty()
    }

    /// Tells what is wrong.
    fn end(self) -> Result<()> {
        for error in &self.wrong {
            complain(error);
        }
        if self.wrong.is_empty() { Ok(()) } else { Err(Silent.into()) }
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{CommandFactory, Parser};

    #[derive(Parser, Debug)]
    struct Line {
        #[command(subcommand)]
        verb: Verb,
    }

    #[test]
    fn every_verb_is_well_formed() {
        Line::command().debug_assert();
    }

    /// Flags without a word of help.
    fn silent(command: &clap::Command, found: &mut Vec<String>) {
        let own = command.get_arguments().filter(|arg| arg.get_help().is_none());
        found.extend(own.map(|arg| format!("{} {}", command.get_name(), arg.get_id())));
        for inner in command.get_subcommands() {
            silent(inner, found);
        }
    }

    #[test]
    fn every_flag_says_what_it_does() {
        let mut found = Vec::new();
        silent(&Line::command(), &mut found);
        // Names of things speak for themselves.
        found.retain(|flag| !flag.ends_with(" name") && !flag.ends_with(" names"));
        assert_eq!(found, Vec::<String>::new());
    }

    #[test]
    fn dockers_lines_are_understood() {
        for line in [
            "swarm init --advertise-addr 10.0.0.1 --default-addr-pool 10.20.0.0/16 --availability drain",
            "swarm join --token t 10.0.0.1:2377",
            "swarm join-token -q worker",
            "swarm leave --force",
            "node ls -q",
            "node update --availability drain --label-add a=b node-1",
            "node ps",
            "service create --replicas=2 -p 80:80 -e A --detach=true nginx",
            "service update --publish-add published=80,target=80 --args '-x' web",
            "service scale web=3 db=1",
            "service logs -f --tail 10 web",
            "service ls --filter name=web --format {{.Name}}",
            "service ps web --no-trunc",
            "service create --host db:10.0.0.9 -H unix:///x nginx",
            "service ps -H unix:///x web",
            "stack deploy -c a.yml -c b.yml --prune --detach=false web",
            "stack rm web",
            "secret create --label a=b --template-driver golang key ./key",
            "secret ls --filter name=k -q",
            "secret inspect --pretty key",
            "secret rm a b",
            "secret update --label-add a=b --label-rm c key",
            "config create app -",
            "service create --secret key --config source=app,target=/app.conf,mode=0400 nginx",
            "service update --secret-rm a --secret-add b --config-rm a --config-add b web",
            "network create --driver overlay --attachable --subnet 10.1.0.0/24 net",
            "ps -a --filter label=a=b",
            "exec -it web sh -c ls",
            "exec -i -e A=1 web cat -n",
            "logs --since 10m web",
            "inspect --format {{.Id}} a b",
            "stop -t 1 web",
            "kill -s HUP web",
            "rm -fv web",
            "rmi -f a",
            "load -i x.tar",
        ] {
            let words = ["skep"].into_iter().chain(line.split_whitespace());
            if let Err(error) = Line::try_parse_from(words) {
                panic!("{line}: {error}");
            }
        }
    }
}
