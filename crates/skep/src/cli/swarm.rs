//! `skep swarm`. (being written)

use crate::client::Client;
use anyhow::{Result, bail};
use clap::Subcommand;

#[derive(Subcommand, Debug)]
pub(crate) enum Verb {
    /// List
    Ls,
}

pub(crate) async fn run(_client: &Client, _verb: Verb) -> Result<()> {
    bail!("not written yet")
}
