//! What containerd tells: ends of containers, for as long as someone listens.
//!
//! The server answers a subscription only with its first event. So an event of our own is
//! published until one comes: then the subscription is known to stand.

use crate::client::{Client, QUICK};
use crate::patience::Patience;
use crate::tasks;
use containerd_client::events::{TaskExit, TaskOom};
use containerd_client::services::v1::{PublishRequest, SubscribeRequest};
use containerd_client::types::Envelope;
use engine::Happening;
use futures_util::stream::{self, BoxStream, StreamExt};
use prost::Message;
use prost_types::Any;
use std::time::Duration;
use tonic::{Status, Streaming};

const EXIT: &str = "/tasks/exit";
const OUT_OF_MEMORY: &str = "/tasks/oom";
/// Our own event.
const MARK: &str = "/skep/subscribed";
const MARK_EVERY: Duration = Duration::from_millis(100);
const SUBSCRIBE_MAX: Duration = Duration::from_secs(10);
const BACK_OFF_FIRST: Duration = Duration::from_millis(50);
const BACK_OFF_MAX: Duration = Duration::from_secs(2);

struct Listening {
    client: Client,
    alive: Patience,
    events: Option<Streaming<Envelope>>,
    pause: Duration,
}

/// Listens without end: subscribes again whenever the connection is lost, or nobody answers at its
/// other end.
pub(crate) fn listen(client: Client, alive: Patience) -> BoxStream<'static, Happening> {
    let start = Listening { client, alive, events: None, pause: BACK_OFF_FIRST };
    let next = |mut listening: Listening| async move {
        let happening = listening.next().await;
        Some((happening, listening))
    };
    stream::unfold(start, next).boxed()
}

impl Listening {
    async fn next(&mut self) -> Happening {
        loop {
            let Some(events) = &mut self.events else {
                match subscribe(&self.client).await {
                    Ok(events) => {
                        self.events = Some(events);
                        self.pause = BACK_OFF_FIRST;
                        return Happening::Resubscribed;
                    }
                    Err(error) => {
                        tracing::warn!(%error, "cannot listen to containerd; trying again");
                        tokio::time::sleep(self.pause).await;
                        self.pause = (self.pause * 2).min(BACK_OFF_MAX);
                        continue;
                    }
                }
            };
            let message = tokio::select! {
                message = events.message() => message,
                () = self.client.silence(self.alive, 1) => {
                    Err(Status::deadline_exceeded("containerd does not answer"))
                }
            };
            match message {
                Ok(Some(event)) => {
                    if let Some(happening) = read(&event) {
                        return happening;
                    }
                }
                Ok(None) => {
                    self.events = None;
                    return Happening::Lost;
                }
                Err(error) => {
                    tracing::info!(%error, "lost the connection to containerd's events");
                    self.events = None;
                    return Happening::Lost;
                }
            }
        }
    }
}

async fn subscribe(client: &Client) -> Result<Streaming<Envelope>, Status> {
    let namespace = client.namespace();
    let topics = [EXIT, OUT_OF_MEMORY, MARK];
    let filters = topics.map(|topic| format!("namespace=={namespace:?},topic=={topic:?}")).to_vec();
    let mut service = client.events();
    let subscription = service.subscribe(client.request(SubscribeRequest { filters }));
    let mark = async {
        loop {
            let event = Any { type_url: "skep.Subscribed".to_owned(), value: Vec::new() };
            let body = PublishRequest { topic: MARK.to_owned(), event: Some(event) };
            let published = client.call("publish an event", QUICK, body);
            if let Err(error) = published.await {
                tracing::debug!(%error, "cannot publish an event");
            }
            tokio::time::sleep(MARK_EVERY).await;
        }
    };
    tokio::select! {
        answer = tokio::time::timeout(SUBSCRIBE_MAX, subscription) => match answer {
            Ok(answer) => answer.map(tonic::Response::into_inner),
            Err(_elapsed) => Err(Status::deadline_exceeded("no event came back")),
        },
        () = mark => Err(Status::internal("the loop above does not end")),
    }
}

fn read(envelope: &Envelope) -> Option<Happening> {
    let data = envelope.event.as_ref()?.value.as_slice();
    match envelope.topic.as_str() {
        EXIT => {
            let event = TaskExit::decode(data).ok()?;
            // Further processes have an id of their own.
            (event.id == event.container_id).then(|| Happening::Ended {
                id: event.container_id,
                exit: tasks::exit(event.exit_status, event.exited_at),
            })
        }
        OUT_OF_MEMORY => {
            let event = TaskOom::decode(data).ok()?;
            Some(Happening::OutOfMemory { id: event.container_id })
        }
        _ => None,
    }
}
