//! A manager's secrets are locked as the cluster wants it, by its unlock key or not at all.

use super::vault::Vault;
use ca::{Identity, UnlockKey};
use raft::Sequencer;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// After it could not be written.
const PAUSE: Duration = Duration::from_secs(5);

/// Follows what the cluster wants, until the token ends.
pub(super) async fn follow(
    vault: Vault,
    identity: Arc<Identity>,
    log: Sequencer,
    token: CancellationToken,
) -> Result<(), Infallible> {
    let mut views = log.watch();
    let mut done = None;
    loop {
        // Before there is a cluster here, nobody knows.
        let wanted = views.borrow_and_update().cluster().map(|it| it.unlock_key.clone());
        if wanted != done {
            let key = wanted.as_ref().and_then(|key| UnlockKey::parse(&key.0));
            match vault.lock_by(key, &identity, &log).await {
                Ok(()) => done.clone_from(&wanted),
                Err(error) => {
                    let error = format!("{error:#}");
                    tracing::error!(
                        error,
                        "cannot lock this manager's keys as the cluster wants it"
                    );
                }
            }
        }
        tokio::select! {
            biased;
            () = token.cancelled() => return Ok(()),
            changed = views.changed() => if changed.is_err() {
                token.cancelled().await;
                return Ok(());
            },
            () = tokio::time::sleep(PAUSE), if wanted != done => {}
        }
    }
}
