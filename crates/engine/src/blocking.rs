//! Work that waits for the disk.

use std::io;
use types::Fault;

/// Runs it beside the loops.
pub(crate) async fn blocking<T, F>(work: F) -> Result<T, Fault>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T, Fault> + Send + 'static,
{
    let ended = tokio::task::spawn_blocking(work).await;
    ended.map_err(|panic| Fault::internal(format!("work on the disk failed: {panic}")))?
}

/// Says what could not be done.
pub(crate) fn cannot(action: &str) -> impl FnOnce(io::Error) -> Fault + '_ {
    move |error| Fault::internal(format!("cannot {action}: {error}"))
}
