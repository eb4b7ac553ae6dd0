//! (being written)

use super::Host;
use anyhow::{Result, bail};
use clap::Args;

#[derive(Args, Debug)]
pub(crate) struct Ps {
    #[command(flatten)]
    host: Host,
}

impl Ps {
    pub(crate) async fn run(self) -> Result<()> {
        bail!("not written yet")
    }
}

#[derive(Args, Debug)]
pub(crate) struct Logs {
    #[command(flatten)]
    host: Host,
}

impl Logs {
    pub(crate) async fn run(self) -> Result<()> {
        bail!("not written yet")
    }
}

#[derive(Args, Debug)]
pub(crate) struct Inspect {
    #[command(flatten)]
    host: Host,
}

impl Inspect {
    pub(crate) async fn run(self) -> Result<()> {
        bail!("not written yet")
    }
}

#[derive(Args, Debug)]
pub(crate) struct Stop {
    #[command(flatten)]
    host: Host,
}

impl Stop {
    pub(crate) async fn run(self) -> Result<()> {
        bail!("not written yet")
    }
}

#[derive(Args, Debug)]
pub(crate) struct Kill {
    #[command(flatten)]
    host: Host,
}

impl Kill {
    pub(crate) async fn run(self) -> Result<()> {
        bail!("not written yet")
    }
}

#[derive(Args, Debug)]
pub(crate) struct Rm {
    #[command(flatten)]
    host: Host,
}

impl Rm {
    pub(crate) async fn run(self) -> Result<()> {
        bail!("not written yet")
    }
}

#[derive(Args, Debug)]
pub(crate) struct Exec {
    #[command(flatten)]
    host: Host,
}

impl Exec {
    pub(crate) async fn run(self) -> Result<std::process::ExitCode> {
        bail!("not written yet")
    }
}
