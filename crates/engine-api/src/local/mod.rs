//! This node's part of the API: containers, exec, images, volumes, events.

mod attach;
mod containers;
mod events;
mod exec;
mod images;
mod unsupported;
mod volumes;

use crate::Api;
use axum::Router;
use types::Timestamp;

/// The routes of this part.
pub(crate) fn routes() -> Router<Api> {
    Router::new()
        .merge(containers::routes())
        .merge(exec::routes())
        .merge(images::routes())
        .merge(volumes::routes())
        .merge(events::routes())
        .merge(unsupported::routes())
}

/// The time, for "3 minutes ago".
#[expect(clippy::disallowed_methods, reason = "the edge reads the clock")]
fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let nanos = since.map_or(0, |since| since.as_nanos());
    Timestamp(i64::try_from(nanos).unwrap_or(i64::MAX))
}
