//! What happens on this node, in Docker's words.
//!
//! Invariants: no two events of a source have the same time, and the times only rise; whoever listens
//! gets each of them, in order, or is told that some are lost.

use crate::clock;
use futures_util::stream::{self, BoxStream, StreamExt};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;
use types::{Fault, Timestamp};

/// Events that are remembered.
const KEPT: usize = 1024;

/// Events as they come. Without a last moment it never ends by itself, but with a fault where events
/// came faster than they were read.
pub type EventStream = BoxStream<'static, Result<Event, Fault>>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    Container,
    Image,
    Volume,
    Network,
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
            Self::Network => "network",
            Self::Audit => "audit",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub kind: EventKind,
    /// E.g. `start`, `die`, `health_status: healthy`.
    pub action: String,
    /// Of the container, image, volume or network; of a network of this node alone its name.
    pub id: String,
    /// `name`, `image`, `exitCode`, labels, …
    pub attributes: BTreeMap<String, String>,
    pub time: Timestamp,
}

/// Events of one source. Nobody who tells one waits; nobody who listens is waited for. The last ones
/// are remembered. Clones are the same.
#[derive(Clone, Debug)]
pub struct Events {
    kept: Arc<Mutex<Kept>>,
    /// How many there were, ever.
    count: Arc<watch::Sender<u64>>,
}

#[derive(Debug)]
struct Kept {
    events: VecDeque<Event>,
    /// After this moment none is missing.
    whole_after: Timestamp,
}

impl Default for Events {
    fn default() -> Self {
        Self::new()
    }
}

impl Events {
    pub fn new() -> Self {
        let kept = Kept { events: VecDeque::new(), whole_after: clock::now() };
        Self { kept: Arc::new(Mutex::new(kept)), count: Arc::new(watch::channel(0).0) }
    }

    pub fn tell(
        &self,
        kind: EventKind,
        action: impl Into<String>,
        id: &str,
        attributes: BTreeMap<String, String>,
    ) {
        let mut kept = self.kept();
        let newest = kept.events.back().map_or(kept.whole_after, |event| event.time);
        if kept.events.len() == KEPT
            && let Some(oldest) = kept.events.pop_front()
        {
            kept.whole_after = oldest.time;
        }
        let (action, id) = (action.into(), id.to_owned());
        let time = clock::now().max(Timestamp(newest.0.saturating_add(1)));
        kept.events.push_back(Event { kind, action, id, attributes, time });
        // Under the lock, so that number and place of an event agree.
        self.count.send_modify(|count| *count += 1);
    }

    /// What came before this moment may have been forgotten. Nothing that came after it is.
    pub fn whole_after(&self) -> Timestamp {
        self.kept().whole_after
    }

    /// Those that come, and before them those since a moment, where one is given; up to a last moment
    /// where there is one.
    pub fn listen(&self, since: Option<Timestamp>, until: Option<Timestamp>) -> EventStream {
        let kept = self.kept();
        let count = *self.count.borrow();
        let is_missed = |event: &&Event| since.is_some_and(|since| since <= event.time);
        let missed = kept.events.iter().filter(is_missed).count();
        let next = count - u64::try_from(missed).unwrap_or(0);
        drop(kept);
        let (events, count, waiting) = (self.clone(), self.count.subscribe(), VecDeque::new());
        let listener = Listener { events, count, next, until, waiting, is_over: false };
        stream::unfold(listener, Listener::next).boxed()
    }

    /// The events from this number on; `None` where the first of them is forgotten.
    fn from(&self, number: u64) -> Option<VecDeque<Event>> {
        let kept = self.kept();
        let first = *self.count.borrow() - u64::try_from(kept.events.len()).unwrap_or(0);
        let skipped = usize::try_from(number.checked_sub(first)?).ok()?;
        Some(kept.events.iter().skip(skipped).cloned().collect())
    }

    /// Events are pushed whole; a panic leaves nothing half done.
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One who listens.
struct Listener {
    events: Events,
    count: watch::Receiver<u64>,
    /// The number of the event that is read next.
    next: u64,
    until: Option<Timestamp>,
    /// What was read already.
    waiting: VecDeque<Event>,
    is_over: bool,
}

impl Listener {
    async fn next(mut self) -> Option<(Result<Event, Fault>, Self)> {
        if self.is_over {
            return None;
        }
        if self.waiting.is_empty() {
            let next = self.next;
            let more = self.count.wait_for(|count| next < *count);
            match self.until {
                // What is remembered comes also when the last moment has passed.
                Some(until) => {
                    let left = until.since(clock::now());
                    drop(tokio::time::timeout(left, more).await.ok()?.ok()?);
                }
                None => drop(more.await.ok()?),
            }
            let Some(read) = self.events.from(next) else {
                self.is_over = true;
                return Some((Err(lost()), self));
            };
            self.next += u64::try_from(read.len()).unwrap_or(0);
            self.waiting = read;
        }
        let event = self.waiting.pop_front()?;
        let in_time = self.until.is_none_or(|until| event.time <= until);
        in_time.then_some((Ok(event), self))
    }
}

fn lost() -> Fault {
    Fault::unavailable(
        "events came faster than they were read, and some are lost: look at what there is, and \
         follow anew",
    )
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
        assert_eq!(new.next().await.unwrap().unwrap().action, "2");
        for action in ["0", "1", "2"] {
            assert_eq!(old.next().await.unwrap().unwrap().action, action);
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
    async fn a_listener_that_is_too_slow_is_told_so_and_that_is_the_end() {
        let events = Events::new();
        let (mut slow, mut just) = (events.listen(None, None), events.listen(None, None));
        let begun = events.whole_after();
        tell(&events, 0..KEPT);
        assert_eq!(events.whole_after(), begun);
        assert_eq!(just.next().await.unwrap().unwrap().action, "0");
        tell(&events, KEPT..KEPT + 10);
        assert!(slow.next().await.unwrap().unwrap_err().message.contains("are lost"));
        assert!(slow.next().await.is_none());
        for number in 1..KEPT {
            assert_eq!(just.next().await.unwrap().unwrap().action, number.to_string());
        }
        let kept: Vec<_> = events.listen(Some(Timestamp(0)), Some(clock::now())).collect().await;
        assert_eq!((kept.len(), kept[0].as_ref().unwrap().action.as_str()), (KEPT, "10"));
        assert!(begun < events.whole_after());
    }

    #[tokio::test]
    async fn one_who_was_cut_off_goes_on_after_the_last_time_that_was_seen() {
        let events = Events::new();
        tell(&events, 0..5);
        let seen: Vec<_> = events.listen(Some(Timestamp(0)), None).take(2).collect().await;
        let last = seen[1].as_ref().unwrap().time;
        let mut again = events.listen(Some(Timestamp(last.0 + 1)), None);
        assert_eq!(again.next().await.unwrap().unwrap().action, "2");
    }
}
