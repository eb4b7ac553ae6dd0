//! The events of all sources in one stream.

use super::filter::Sources;
use super::told::Told;
use crate::Api;
use crate::audit::Audit;
use crate::port::{Membership, Node};
use futures_util::stream::{self, BoxStream, Peekable, StreamExt};
use manager::Manager;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::watch;
use types::{Fault, Timestamp};

/// From when on, and until when. Without a beginning: from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) since: Option<Timestamp>,
    pub(super) until: Option<Timestamp>,
}

pub(super) type Events = BoxStream<'static, Result<Told, Fault>>;

/// What is wanted of whom, in the order of time where more than one has something to tell.
pub(super) fn follow(api: &Api, audit: &Audit, (sources, span): (Sources, Span)) -> Events {
    let Span { since, until } = span;
    let told = |events: engine::EventStream| events.map(|event| event.map(Told::from)).boxed();
    let local = sources.local.then(|| told(api.engine.events(since, until)));
    let swarm = sources.swarm.then(|| cluster(api.node.as_ref(), span));
    let audit = sources.audit.then(|| told(audit.events(since, until)));
    let all = [local, swarm, audit].into_iter().flatten();
    all.reduce(by_time).unwrap_or_else(|| nothing(until))
}

/// After this moment nothing is missing.
pub(super) fn whole_after(api: &Api, sources: Sources) -> Timestamp {
    let local = sources.local.then(|| api.engine.events_whole_after());
    let manager = sources.swarm.then(|| api.node.membership().manager().ok()).flatten();
    let swarm = manager.map(|manager| manager.view().history().whole_after());
    local.max(swarm).unwrap_or_default()
}

/// Nobody has anything to tell: what was asked for is in no source.
fn nothing(until: Option<Timestamp>) -> Events {
    let end = async move {
        match until {
            Some(until) => tokio::time::sleep(until.since(time_of_day())).await,
            None => std::future::pending().await,
        }
    };
    stream::once(end).filter_map(|()| std::future::ready(None)).boxed()
}

/// What happens in the cluster, from when on this node is a manager.
fn cluster(node: &dyn Node, span: Span) -> Events {
    let mut membership = node.memberships();
    let manager = membership.borrow_and_update().clone().manager().ok();
    let part = match manager {
        Some(manager) => Part::Follows(of_manager(&manager, span)),
        // What happens before this node has it is told too.
        None => Part::Waits(membership, Span { since: span.since.or(Some(time_of_day())), ..span }),
    };
    stream::unfold(part, Part::next).boxed()
}

fn of_manager(manager: &Manager, Span { since, until }: Span) -> Events {
    manager.events(since, until).map(|event| event.map(Told::from)).boxed()
}

/// How a node that may become a manager has part in the cluster.
enum Part {
    Waits(watch::Receiver<Membership>, Span),
    Follows(Events),
}

impl Part {
    async fn next(self) -> Option<(Result<Told, Fault>, Self)> {
        let mut events = match self {
            Self::Follows(events) => events,
            Self::Waits(membership, span) => {
                let manager = wait(membership, span.until).await?;
                let whole_after = manager.view().history().whole_after();
                let is_unknown = |since: Timestamp| (since.0 - 1).max(0) < whole_after.0;
                if span.since.is_some_and(is_unknown) {
                    let ended = stream::empty().boxed();
                    return Some((Err(unknown()), Self::Follows(ended)));
                }
                of_manager(&manager, span)
            }
        };
        let event = events.next().await?;
        Some((event, Self::Follows(events)))
    }
}

fn unknown() -> Fault {
    Fault::unavailable(
        "this node has become a manager that does not know all that has happened since then, and some \
         events are lost: look at what there is, and follow anew",
    )
}

/// Waits until the node is a manager; `None` where it is not until then.
async fn wait(
    mut membership: watch::Receiver<Membership>,
    until: Option<Timestamp>,
) -> Option<Manager> {
    let becomes = async {
        loop {
            let manager = membership.borrow_and_update().clone().manager();
            if let Ok(manager) = manager {
                return Some(manager);
            }
            membership.changed().await.ok()?;
        }
    };
    match until {
        Some(until) => {
            tokio::time::timeout(until.since(time_of_day()), becomes).await.ok().flatten()
        }
        None => becomes.await,
    }
}

#[expect(clippy::disallowed_methods, reason = "what clients ask for goes by the time of day")]
fn time_of_day() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::default().after(since)
}

/// Both, the earlier event first where both have one. It ends when both have ended.
fn by_time(one: Events, other: Events) -> Events {
    let mut both = (one.peekable(), other.peekable());
    stream::poll_fn(move |ctx| {
        let (one, other) = &mut both;
        let takes_other = match (peek(one, ctx), peek(other, ctx)) {
            (Poll::Ready(Some(first)), Poll::Ready(Some(second))) => second < first,
            (Poll::Ready(Some(_)), _) | (_, Poll::Ready(None)) => false,
            (Poll::Ready(None), _) | (Poll::Pending, Poll::Ready(Some(_))) => true,
            (Poll::Pending, Poll::Pending) => return Poll::Pending,
        };
        if takes_other { other.poll_next_unpin(ctx) } else { one.poll_next_unpin(ctx) }
    })
    .boxed()
}

/// The time of what comes next. A fault comes first.
fn peek(events: &mut Peekable<Events>, ctx: &mut Context<'_>) -> Poll<Option<Timestamp>> {
    let next = Pin::new(events).poll_peek(ctx);
    next.map(|event| event.map(|event| event.as_ref().map_or(Timestamp(i64::MIN), |it| it.time)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    fn events(times: &[i64]) -> Events {
        let told = |time: &i64| {
            Ok(Told {
                kind: "service",
                action: "update".into(),
                id: time.to_string(),
                attributes: std::collections::BTreeMap::new(),
                scope: "swarm",
                time: Timestamp(*time),
            })
        };
        stream::iter(times.iter().map(told).collect::<Vec<_>>()).boxed()
    }

    fn times(events: Vec<Result<Told, Fault>>) -> Vec<Option<i64>> {
        events.into_iter().map(|event| event.ok().map(|event| event.time.0)).collect()
    }

    #[test]
    fn two_sources_are_told_in_the_order_of_time() {
        let both = by_time(events(&[1, 4, 5]), events(&[2, 3, 9]));
        let told = times(both.collect::<Vec<_>>().now_or_never().unwrap());
        assert_eq!(told, [1, 2, 3, 4, 5, 9].map(Some));
    }

    #[test]
    fn one_that_has_nothing_to_tell_holds_up_nobody_and_a_fault_comes_at_once() {
        let silent = stream::pending().boxed();
        let mut both = by_time(silent, events(&[1]));
        assert!(both.next().now_or_never().is_some());
        assert!(both.next().now_or_never().is_none(), "it goes on");
        let fault = stream::iter([Err(Fault::unavailable("lost"))]).boxed();
        let both = by_time(events(&[1, 2]), fault);
        assert_eq!(times(both.collect::<Vec<_>>().now_or_never().unwrap())[0], None);
    }
}
