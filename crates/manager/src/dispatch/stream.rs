//! The stream of a session: what waits to be sent to a node.
//!
//! Assignments and logs wait apart. What a node has not read of its assignments is bounded by what it
//! has not acknowledged; requests for logs come all at once when a session opens, or when those go
//! who followed them, and say nothing of how fast the node reads.

use super::subscriptions::SUBSCRIPTIONS;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tonic::Status;
use wire::SessionMessage;

/// Messages that wait to be sent to a node. A node that lets it fill up is cut off; it comes back
/// and gets everything anew.
const QUEUE: usize = 64;
/// The same of logs: everybody's may begin, and end, before a node has read of it.
const LOGS: usize = 2 * SUBSCRIPTIONS;

type Message = Result<SessionMessage, Status>;

/// Where the messages of a session go.
#[derive(Debug)]
pub(crate) struct Sink {
    assignments: mpsc::Sender<Message>,
    logs: mpsc::Sender<Message>,
}

/// What comes out at the other end.
#[derive(Debug)]
pub(crate) struct Messages {
    assignments: mpsc::Receiver<Message>,
    logs: mpsc::Receiver<Message>,
    /// The welcome is out: it goes before anything else.
    begun: bool,
}

pub(super) fn stream() -> (Sink, Messages) {
    let (assignments, assigned) = mpsc::channel(QUEUE);
    let (logs, wanted) = mpsc::channel(LOGS);
    let messages = Messages { assignments: assigned, logs: wanted, begun: false };
    (Sink { assignments, logs }, messages)
}

impl Sink {
    /// Puts a message in. False where there is no room for it, or nobody reads any more.
    pub(super) fn put(&self, message: SessionMessage) -> bool {
        let queue = match message {
            SessionMessage::Welcome(_)
            | SessionMessage::Whole(_)
            | SessionMessage::Difference(_) => &self.assignments,
            SessionMessage::Logs(_) | SessionMessage::LogsDone(_) => &self.logs,
        };
        queue.try_send(Ok(message)).is_ok()
    }

    pub(super) fn is_closed(&self) -> bool {
        self.assignments.is_closed()
    }
}

impl Stream for Messages {
    type Item = Message;

    /// Ends with its sink.
    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Message>> {
        if let Poll::Ready(message) = self.assignments.poll_recv(cx) {
            self.begun = true;
            return Poll::Ready(message);
        }
        if self.begun
            && let Poll::Ready(Some(message)) = self.logs.poll_recv(cx)
        {
            return Poll::Ready(Some(message));
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio_stream::StreamExt;
    use wire::{Assignments, LogRequest, Welcome};

    #[tokio::test]
    async fn however_many_logs_are_wanted_the_welcome_goes_first_and_assignments_have_their_places()
    {
        let (sink, mut messages) = stream();
        for _ in 0..SUBSCRIPTIONS {
            assert!(sink.put(SessionMessage::Logs(LogRequest::default())));
            assert!(sink.put(SessionMessage::LogsDone(String::new())));
        }
        assert!(!sink.put(SessionMessage::LogsDone(String::new())), "it is bounded");
        let early = tokio::time::timeout(std::time::Duration::ZERO, messages.next()).await;
        assert!(early.is_err(), "before the welcome: {early:?}");
        assert!(sink.put(SessionMessage::Welcome(Welcome::default())));
        for _ in 1..QUEUE {
            assert!(sink.put(SessionMessage::Whole(Assignments::default())));
        }
        assert!(!sink.put(SessionMessage::Whole(Assignments::default())), "it is bounded");
        let first = messages.next().await.unwrap().unwrap();
        assert!(matches!(first, SessionMessage::Welcome(_)), "{first:?}");
        drop(sink);
        let rest = messages.collect::<Vec<_>>().await;
        assert!(rest.len() >= QUEUE - 1);
    }
}
