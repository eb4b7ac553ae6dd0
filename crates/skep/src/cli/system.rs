//! (being written)

use super::Host;
use anyhow::{Result, bail};
use clap::Args;

#[derive(Args, Debug)]
pub(crate) struct Version {
    #[command(flatten)]
    host: Host,
}

impl Version {
    pub(crate) async fn run(self) -> Result<()> {
        bail!("not written yet")
    }
}

#[derive(Args, Debug)]
pub(crate) struct Info {
    #[command(flatten)]
    host: Host,
}

impl Info {
    pub(crate) async fn run(self) -> Result<()> {
        bail!("not written yet")
    }
}
