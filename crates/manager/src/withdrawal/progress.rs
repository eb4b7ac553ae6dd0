//! How far one session's node is behind.

use std::collections::VecDeque;
use types::Version;

/// Messages of a session that are remembered until they are acknowledged.
const UNACKNOWLEDGED: usize = 256;

/// What one session's node has not applied yet.
#[derive(Clone, Debug, Default)]
pub(crate) struct Progress {
    /// Messages that are not acknowledged, oldest first.
    sent: VecDeque<Sent>,
    /// The first view of which something follows for the node that it was not told.
    untold: Option<Version>,
}

#[derive(Clone, Copy, Debug)]
struct Sent {
    message: u64,
    /// The first view of which something follows that no message before carries.
    from: Version,
}

impl Progress {
    /// That of a session which begins with `message`: its node has seen nothing.
    pub(crate) fn beginning(message: u64) -> Self {
        let first = Sent { message, from: Version(0) };
        Self { sent: [first].into(), untold: None }
    }

    /// Notes that something may follow from `view` for the node.
    pub(crate) fn concerns(&mut self, view: Version) {
        self.untold.get_or_insert(view);
    }

    /// Says whether there may be something to tell.
    pub(crate) fn is_stale(&self) -> bool {
        self.untold.is_some()
    }

    /// Notes that `message` tells all that was to tell.
    pub(crate) fn told(&mut self, message: u64) {
        let Some(mut from) = self.untold.take() else { return };
        if self.sent.len() >= UNACKNOWLEDGED
            && let Some(last) = self.sent.pop_back()
        {
            // It counts as applied with the newer one, no sooner.
            from = last.from;
        }
        self.sent.push_back(Sent { message, from });
    }

    /// Notes that there was nothing to tell.
    pub(crate) fn had_nothing(&mut self) {
        self.untold = None;
    }

    /// Notes that the node has applied all messages up to `message`.
    pub(crate) fn acknowledged(&mut self, message: u64) {
        while self.sent.front().is_some_and(|sent| sent.message <= message) {
            self.sent.pop_front();
        }
    }

    /// The first view of which the node has not applied everything; `None`: it has applied all.
    pub(crate) fn lacks(&self) -> Option<Version> {
        self.sent.front().map(|sent| sent.from).or(self.untold)
    }

    /// Messages that the node has not applied yet.
    pub(crate) fn unacknowledged(&self) -> usize {
        self.sent.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tell(progress: &mut Progress, message: u64, view: u64) {
        progress.concerns(Version(view));
        progress.told(message);
    }

    #[test]
    fn what_is_remembered_of_a_node_that_never_acknowledges_is_limited() {
        let mut progress = Progress::default();
        for message in 1..=1000 {
            tell(&mut progress, message, message);
        }
        assert_eq!(progress.unacknowledged(), UNACKNOWLEDGED);
        progress.acknowledged(999);
        assert!(progress.lacks() < Some(Version(999)));
        progress.acknowledged(1000);
        assert_eq!(progress.lacks(), None);
    }

    #[test]
    fn an_acknowledgement_covers_what_was_sent_before_and_what_changed_nothing_since() {
        let mut progress = Progress::beginning(1);
        // Views 11 and before do not concern the node.
        tell(&mut progress, 2, 12);
        assert_eq!(progress.lacks(), Some(Version(0)));
        progress.acknowledged(1);
        assert_eq!(progress.lacks(), Some(Version(12)), "it has seen 11");
        progress.acknowledged(2);
        assert_eq!(progress.lacks(), None);
        progress.concerns(Version(15));
        progress.concerns(Version(16));
        assert_eq!(progress.lacks(), Some(Version(15)), "it was not told");
        progress.had_nothing();
        assert_eq!(progress.lacks(), None, "it came to nothing");
    }
}
