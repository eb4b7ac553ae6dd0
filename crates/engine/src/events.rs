//! What happens on this node, in Docker's words.

use crate::clock;
use futures_util::stream::{self, BoxStream, StreamExt};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;
use types::Timestamp;

/// Events that are remembered.
const KEPT: usize = 256;

/// Events as they come. Without a last moment it never ends by itself.
pub type EventStream = BoxStream<'static, Event>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    Container,
    Image,
    Volume,
    /// What was asked of the daemon, and by whom.
    Audit,
}

impl EventKind {
    /// Docker's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Container => "container",
            Self::Image => "image",
            Self::Volume => "volume",
            Self::Audit => "audit",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub kind: EventKind,
    /// E.g. `start`, `die`, `health_status: healthy`.
    pub action: String,
    /// Of the container, image or volume.
    pub id: String,
    /// `name`, `image`, `exitCode`, labels, …
    pub attributes: BTreeMap<String, String>,
    pub time: Timestamp,
}

/// Events of one source. Nobody who tells one waits; nobody who listens is waited for. The last 256
/// are remembered. Clones are the same.
#[derive(Clone, Debug)]
pub struct Events {
    kept: Arc<Mutex<VecDeque<Event>>>,
    /// How many there were, ever.
    count: Arc<watch::Sender<u64>>,
}

impl Default for Events {
    fn default() -> Self {
        Self::new()
    }
}

impl Events {
    pub fn new() -> Self {
        let kept = Arc::new(Mutex::new(VecDeque::with_capacity(KEPT)));
        Self { kept, count: Arc::new(watch::channel(0).0) }
    }

    pub fn tell(
        &self,
        kind: EventKind,
        action: impl Into<String>,
        id: &str,
        attributes: BTreeMap<String, String>,
    ) {
        let mut kept = self.kept();
        if kept.len() == KEPT {
            kept.pop_front();
        }
        let (action, id, time) = (action.into(), id.to_owned(), clock::now());
        kept.push_back(Event { kind, action, id, attributes, time });
        // Under the lock, so that number and place of an event agree.
        self.count.send_modify(|count| *count += 1);
    }

    /// Those that come, and before them those since a moment, where one is given; up to a last moment
    /// where there is one.
    pub fn listen(&self, since: Option<Timestamp>, until: Option<Timestamp>) -> EventStream {
        let kept = self.kept();
        let count = *self.count.borrow();
        let missed = kept.iter().filter(|event| since.is_some_and(|since| since <= event.time));
        let next = count - u64::try_from(missed.count()).unwrap_or(0);
        drop(kept);
        let listener = (self.clone(), self.count.subscribe(), next);
        stream::unfold(listener, move |(events, mut count, next)| async move {
            let more = count.wait_for(|count| next < *count);
            match until {
                // What is remembered comes also when the last moment has passed.
                Some(until) => {
                    let left = until.since(clock::now());
                    drop(tokio::time::timeout(left, more).await.ok()?.ok()?);
                }
                None => drop(more.await.ok()?),
            }
            let (event, next) = events.at(next)?;
            let in_time = until.is_none_or(|until| event.time <= until);
            in_time.then_some((event, (events, count, next)))
        })
        .boxed()
    }

    /// The event with this number, or the oldest that is remembered; and the number after it.
    fn at(&self, number: u64) -> Option<(Event, u64)> {
        let kept = self.kept();
        let first = *self.count.borrow() - u64::try_from(kept.len()).unwrap_or(0);
        let number = number.max(first);
        let event = kept.get(usize::try_from(number - first).ok()?)?;
        Some((event.clone(), number + 1))
    }

    /// Events are pushed whole; a panic leaves nothing half done.
    fn kept(&self) -> MutexGuard<'_, VecDeque<Event>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tell(events: &Events, numbers: std::ops::Range<usize>) {
        for number in numbers {
            events.tell(EventKind::Container, number.to_string(), "id", BTreeMap::new());
        }
    }

    #[tokio::test]
    async fn a_listener_gets_what_comes_and_what_is_remembered_since() {
        let events = Events::new();
        tell(&events, 0..2);
        let mut new = events.listen(None, None);
        let mut old = events.listen(Some(Timestamp(0)), None);
        tell(&events, 2..3);
        assert_eq!(new.next().await.unwrap().action, "2");
        for action in ["0", "1", "2"] {
            assert_eq!(old.next().await.unwrap().action, action);
        }
    }

    #[tokio::test]
    async fn a_listener_with_a_last_moment_gets_what_was_before_and_the_end() {
        let events = Events::new();
        tell(&events, 0..2);
        let until = clock::now();
        let told: Vec<_> = events.listen(Some(Timestamp(0)), Some(until)).collect().await;
        assert_eq!(told.len(), 2);
        let soon = Timestamp(until.0 + 50_000_000);
        assert_eq!(events.listen(None, Some(soon)).count().await, 0);
        let before = events.listen(Some(Timestamp(0)), Some(Timestamp(1)));
        assert_eq!(before.count().await, 0);
    }

    #[tokio::test]
    async fn a_slow_listener_misses_the_oldest() {
        let events = Events::new();
        let mut slow = events.listen(None, None);
        tell(&events, 0..KEPT + 10);
        assert_eq!(slow.next().await.unwrap().action, "10");
    }
}
