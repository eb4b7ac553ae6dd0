//! (being written)

use super::Host;
use anyhow::{Result, bail};
use clap::Args;

#[derive(Args, Debug)]
pub(crate) struct Images {
    #[command(flatten)]
    host: Host,
}

impl Images {
    pub(crate) async fn run(self) -> Result<()> {
        bail!("not written yet")
    }
}

#[derive(Args, Debug)]
pub(crate) struct Load {
    #[command(flatten)]
    host: Host,
}

impl Load {
    pub(crate) async fn run(self) -> Result<()> {
        bail!("not written yet")
    }
}

#[derive(Args, Debug)]
pub(crate) struct Pull {
    #[command(flatten)]
    host: Host,
}

impl Pull {
    pub(crate) async fn run(self) -> Result<()> {
        bail!("not written yet")
    }
}

#[derive(Args, Debug)]
pub(crate) struct Rmi {
    #[command(flatten)]
    host: Host,
}

impl Rmi {
    pub(crate) async fn run(self) -> Result<()> {
        bail!("not written yet")
    }
}
