//! `skep`: the one binary. The daemon of a node, docker's verbs for machines without a docker CLI,
//! and a lab of several nodes on one machine.
//!
//! It wires the crates together and decides nothing itself. Start with `daemon`, which knows every
//! implementation of every port; `cli` speaks the Engine API like any other client.

mod cgroup;
mod check;
mod cli;
mod client;
mod daemon;
mod images;
mod lab;
mod noted_options;
mod process;
mod remains;
mod uninstall;

use anyhow::Result;
use clap::{Parser, Subcommand};
use std::process::ExitCode;

#[derive(Parser, Debug)]
#[command(name = "skep", version, about = "Docker Swarm mode, rebuilt and made better")]
struct Skep {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand, Debug)]
enum Verb {
    /// Run this machine's node
    Daemon(Box<daemon::Options>),
    /// Answer the containers' DNS questions (the daemon starts it)
    #[command(hide = true)]
    Resolver(daemon::resolver::Options),
    /// Mount something for a volume (the daemon starts it)
    #[command(hide = true, name = engine::MOUNT_HELPER)]
    MountHelper,
    /// Check whether this machine has what skep needs
    Check,
    /// Take everything of this machine's node off it; its data stays unless asked for
    Uninstall(uninstall::Options),
    /// Run a cluster of several nodes on this machine
    Lab(lab::Lab),
    #[command(flatten)]
    Docker(cli::Verb),
}

fn main() -> ExitCode {
    match run(Skep::parse()) {
        Ok(code) => code,
        Err(error) => {
            cli::complain(&error);
            ExitCode::FAILURE
        }
    }
}

fn run(skep: Skep) -> Result<ExitCode> {
    // Before there is any other thread: a namespace is entered by a thread, not by a process.
    if let Verb::Daemon(options) = &skep.verb
        && let Some(netns) = &options.netns
    {
        linux::enter(netns)?;
    }
    // Rights are given up by each thread for itself, too.
    if let Verb::Resolver(options) = &skep.verb {
        return daemon::resolver::run(options).map(|()| ExitCode::SUCCESS);
    }
    if let Verb::MountHelper = &skep.verb {
        let done = engine::mount_helper();
        return Ok(if done.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let code = runtime.block_on(async {
        match skep.verb {
            Verb::Daemon(options) => daemon::run(*options).await.map(|()| ExitCode::SUCCESS),
            Verb::Resolver(_) | Verb::MountHelper => unreachable!("it has ended"),
            Verb::Check => Ok(check::run()),
            Verb::Uninstall(options) => uninstall::run(options).await.map(|()| ExitCode::SUCCESS),
            Verb::Lab(lab) => lab::run(lab).await.map(|()| ExitCode::SUCCESS),
            Verb::Docker(verb) => cli::run(verb).await,
        }
    });
    // A read of standard input cannot be interrupted; it must not keep the process.
    runtime.shutdown_background();
    code
}
