//! Whoever is no node of the cluster any more has no connection to any of its managers.

use crate::callers::may_stay;
use crate::managers::Leading;
use ca::{Connections, Peer};
use std::convert::Infallible;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use types::NodeRole;

/// Between two looks at who is connected.
const LOOK: Duration = Duration::from_millis(500);

/// Ends connections of those who have gone, until the token is cancelled.
pub(super) async fn run(
    connections: Connections,
    leading: Leading,
    token: CancellationToken,
) -> Result<(), Infallible> {
    while token.run_until_cancelled(tokio::time::sleep(LOOK)).await.is_some() {
        let (view, now) = (leading.log.view(), leading.log.now());
        let knows_all = leading.check().is_ok();
        connections.retain(|peer| may_stay(peer, &view, now) || !knows_all && may_be(peer));
    }
    Ok(())
}

/// A manager that does not lead may not have heard of another one yet, and hears of it by its messages.
fn may_be(peer: &Peer) -> bool {
    peer.role == NodeRole::Manager
}
