//! The loop that owns what is known and what is here, and makes kernel and names follow.

use crate::error::Error;
use crate::handle::{Command, Config};
use crate::port::Namespaces;
use discovery::Kernel;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

pub(crate) struct Run<K, N> {
    config: Config,
    kernel: K,
    namespaces: N,
    applied: watch::Sender<u64>,
}

impl<K: Kernel, N: Namespaces> Run<K, N> {
    pub(crate) async fn open(
        config: Config,
        kernel: K,
        namespaces: N,
        applied: watch::Sender<u64>,
    ) -> Result<Self, Error> {
        Ok(Self { config, kernel, namespaces, applied })
    }

    pub(crate) async fn run(
        self,
        mut commands: mpsc::Receiver<Command>,
        token: CancellationToken,
    ) -> Result<(), Error> {
        token.cancelled().await;
        commands.close();
        Ok(())
    }
}
