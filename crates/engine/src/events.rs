//! What happens on this node, in Docker's words.

use futures_util::stream::BoxStream;
use std::collections::BTreeMap;
use types::Timestamp;

/// Events as they come. Never ends by itself.
pub type EventStream = BoxStream<'static, Event>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    Container,
    Image,
    Volume,
}

impl EventKind {
    /// Docker's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Container => "container",
            Self::Image => "image",
            Self::Volume => "volume",
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
