//! `skep lab keep`: starts the lab's containerd anew when it dies or hangs, as a daemon does that owns one.

use super::layout::Layout;
use anyhow::Result;
use containerd::Patience;
use tokio_util::sync::CancellationToken;

/// Keeps it until killed.
pub(super) async fn run(layout: &Layout) -> Result<()> {
    let owned = containerd::OwnContainerd::start(layout.containerd(), Patience::USUAL).await?;
    Ok(owned.keep(CancellationToken::new()).await?)
}
