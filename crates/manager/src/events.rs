//! What happens in the cluster, for those who follow it.
//!
//! Each manager tells it from its own log, so that nobody who follows depends on who leads. Invariant:
//! whoever follows gets each event once and in the log's order, or a fault that ends the stream; who
//! goes on after the time of the last event that he has, here or at another manager, misses none.

use crate::Manager;
use futures_util::stream::{self, BoxStream, StreamExt};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use store::{Event, View};
use tokio::sync::watch;
use types::{Fault, Timestamp};

/// Events as they come. Without a last moment it never ends by itself, and with a fault where some are
/// lost or this node is no manager any more.
pub type EventStream = BoxStream<'static, Result<Arc<Event>, Fault>>;

/// Before a moment is looked at again that is far away.
const LOOK: Duration = Duration::from_hours(1);

impl Manager {
    /// What happens from now on, and before that what has happened since a moment, where one is given;
    /// up to a last moment, where there is one. Moments are of the cluster's clock.
    pub fn events(&self, since: Option<Timestamp>, until: Option<Timestamp>) -> EventStream {
        let views = self.watch();
        let history = views.borrow().history().clone();
        let position = match since {
            Some(since) => Timestamp(since.0.saturating_sub(1)),
            None => history.newest(),
        };
        let follower = Follower {
            manager: self.clone(),
            views,
            // It was forgotten before anybody asked; who wants to know asks for `whole_after`.
            position: position.max(history.whole_after()),
            until,
            waiting: VecDeque::new(),
            // Who comes from another manager has perhaps seen what is not here yet.
            is_behind: history.newest() < position,
            is_last: false,
        };
        // It ends after what has failed, too.
        let tell = |mut follower: Follower| async move {
            let told = follower.tell().await?;
            Ok::<_, Fault>(told.map(|event| (event, follower)))
        };
        stream::try_unfold(follower, tell).boxed()
    }
}

/// One who follows.
struct Follower {
    manager: Manager,
    views: watch::Receiver<View>,
    /// What came up to here was told, or is not wanted.
    position: Timestamp,
    until: Option<Timestamp>,
    /// What was read and not told yet.
    waiting: VecDeque<Arc<Event>>,
    is_behind: bool,
    /// The last moment has passed, and all that was before it is in the view.
    is_last: bool,
}

impl Follower {
    /// The next event, once there is one; `None` at the end.
    async fn tell(&mut self) -> Result<Option<Arc<Event>>, Fault> {
        self.catch_up().await;
        loop {
            if self.waiting.is_empty() {
                let view = self.views.borrow_and_update();
                let read = read(&view, self.position)?;
                drop(view);
                self.waiting = read;
            }
            if let Some(event) = self.waiting.pop_front() {
                self.position = event.time;
                let in_time = self.until.is_none_or(|until| event.time <= until);
                return Ok(in_time.then_some(event));
            }
            if self.is_last {
                return Ok(None);
            }
            self.wait().await?;
        }
    }

    /// Makes sure that what is after a moment that this manager does not know yet is new.
    async fn catch_up(&mut self) {
        // Where nobody leads there is nothing new either.
        if std::mem::take(&mut self.is_behind)
            && let Ok(view) = self.manager.fresh().await
        {
            self.position = self.position.min(view.history().newest());
        }
    }

    /// Waits until there is something new or the last moment has passed.
    async fn wait(&mut self) -> Result<(), Fault> {
        let Some(until) = self.until else { return self.changed().await };
        let left = until.since(self.manager.now());
        if left.is_zero() {
            // What was acknowledged to anybody before.
            self.manager.fresh().await?;
            self.is_last = true;
            return Ok(());
        }
        tokio::time::timeout(left.min(LOOK), self.changed()).await.unwrap_or(Ok(()))
    }

    async fn changed(&mut self) -> Result<(), Fault> {
        let ended = |_| {
            Fault::unavailable(
                "this node is no manager any more, or stops: follow at another one, from the time \
                 of the last event on",
            )
        };
        self.views.changed().await.map_err(ended)
    }
}

/// The events of a view after a moment, all of them.
fn read(view: &View, position: Timestamp) -> Result<VecDeque<Arc<Event>>, Fault> {
    let history = view.history();
    if position < history.whole_after() {
        return Err(Fault::unavailable(
            "events came faster than they were read, or this manager was too far behind, and some \
             are lost: look at what there is, and follow anew",
        ));
    }
    Ok(history.after(position).cloned().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use store::Tx;
    use types::{Config, Version};

    fn write(view: &mut View, label: u64) {
        let mut tx = Tx::new(view);
        let mut config = Config { id: "c".into(), ..Config::default() };
        config.spec.labels.insert("label".to_owned(), label.to_string());
        tx.put(config);
        let next = Version(view.version().0 + 1);
        view.apply(&tx.finish(), next, Timestamp(0));
    }

    #[test]
    fn one_who_is_too_slow_gets_a_fault_and_not_a_part() {
        let mut view = View::default();
        (0..10).for_each(|label| write(&mut view, label));
        let position = view.history().after(Timestamp(0)).nth(4).unwrap().time;
        assert_eq!(read(&view, position).unwrap().len(), 5);
        let mut label = 10;
        while view.history().whole_after() <= position {
            assert!(read(&view, position).is_ok());
            write(&mut view, label);
            label += 1;
        }
        assert!(read(&view, position).unwrap_err().message.contains("are lost"));
        // One who has just that much is not too slow.
        assert!(read(&view, view.history().whole_after()).is_ok());
    }
}
