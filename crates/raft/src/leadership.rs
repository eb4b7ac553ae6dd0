//! Who leads.

use crate::consensus::Consensus;
use crate::sequencer::Metrics;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::{Instant, RaftMetrics};
use std::convert::Infallible;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// A leader that has heard nothing of most of the others for so long has been replaced, for all it
/// knows. It is more than the library's own times, by which it refuses writes.
const QUORUM_LIMIT: Duration = Duration::from_secs(2);

/// Who leads, as far as this member knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leadership {
    /// The term of the last election.
    pub term: u64,
    pub leader: Option<u64>,
    /// This member leads, its view holds everything from before its term, and most of the others
    /// were heard of lately.
    pub is_own: bool,
}

impl Leadership {
    pub(crate) fn of(metrics: &RaftMetrics<Consensus>) -> Self {
        // A leader begins its term with an entry of its own. What comes before it is settled once
        // that one is.
        let has_begun =
            metrics.last_applied.is_some_and(|id| *id.leader_id == metrics.current_term);
        Self {
            term: metrics.current_term,
            leader: metrics.current_leader,
            is_own: metrics.state.is_leader() && has_begun && hears_most(metrics),
        }
    }
}

fn hears_most(metrics: &RaftMetrics<Consensus>) -> bool {
    is_alone(metrics) || metrics.last_quorum_acked.is_none_or(|at| at.elapsed() < QUORUM_LIMIT)
}

/// This member votes, and no other one. One that has not got the log yet knows of no votes at all.
pub(crate) fn is_alone(metrics: &RaftMetrics<Consensus>) -> bool {
    metrics.membership_config.voter_ids().eq([metrics.id])
}

/// Publishes who leads, until the token ends.
pub(crate) async fn run(
    mut metrics: Metrics,
    leadership: watch::Sender<Leadership>,
    token: CancellationToken,
) -> Result<(), Infallible> {
    loop {
        let present = Leadership::of(&metrics.borrow_and_update());
        leadership.send_if_modified(|last| std::mem::replace(last, present) != present);
        tokio::select! {
            biased;
            () = token.cancelled() => return Ok(()),
            changed = metrics.changed() => if changed.is_err() {
                // The library has ended: the writer says why.
                token.cancelled().await;
                return Ok(());
            },
            // Silence is no change.
            () = tokio::time::sleep(QUORUM_LIMIT), if present.is_own => {}
        }
    }
}
