//! Who did what, and what came of it: each request that changes something or shows a secret is told
//! in the daemon's log (target `audit`), and as an event to whoever asks for `type=audit`.
//!
//! Bodies, queries and headers are never told: they may hold secrets. Only the name that a new object
//! is to have is.

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use engine::{EventKind, EventStream, Events};
use http::{Method, StatusCode, Uri};
use std::collections::BTreeMap;
use std::fmt;
use types::Timestamp;

/// The longest path or name that is told.
const TEXT_MAX: usize = 512;

/// Who asks, as the socket knows it: whoever serves the API adds it to each request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// A process on this machine.
    Process { uid: u32, pid: Option<i32> },
    /// The subject of a client's certificate.
    Client { subject: String },
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process { uid, pid: Some(pid) } => write!(f, "uid {uid}, pid {pid}"),
            Self::Process { uid, pid: None } => write!(f, "uid {uid}"),
            Self::Client { subject } => write!(f, "{}", subject.escape_debug()),
        }
    }
}

/// What was done, for those who follow it.
#[derive(Clone, Debug)]
pub(crate) struct Audit(Events);

impl Audit {
    pub(crate) fn new() -> Self {
        Self(Events::new())
    }

    pub(crate) fn events(&self, since: Option<Timestamp>, until: Option<Timestamp>) -> EventStream {
        self.0.listen(since, until)
    }
}

/// Tells a request and its outcome.
pub(crate) async fn told(State(audit): State<Audit>, request: Request, next: Next) -> Response {
    if !is_told(request.method(), request.uri().path()) {
        return next.run(request).await;
    }
    let mut entry = Entry {
        audit,
        who: request.extensions().get::<Caller>().map_or("nobody".to_owned(), Caller::to_string),
        verb: request.method().clone(),
        object: short(request.uri().path()),
        name: name_in(request.uri()),
        outcome: None,
    };
    let response = next.run(request).await;
    entry.outcome = Some(response.status());
    response
}

/// What is asked for without a change is not told, but where it shows a secret or what is in a container.
fn is_told(method: &Method, path: &str) -> bool {
    if !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS) {
        return true;
    }
    let is_inside = |end: &str| path.starts_with("/containers/") && path.ends_with(end);
    ["/swarm", "/swarm/unlockkey", "/skep/backup"].contains(&path)
        || ["/archive", "/export", "/attach/ws"].into_iter().any(is_inside)
}

/// The name that something new is to have.
fn name_in(uri: &Uri) -> Option<String> {
    let mut pairs = form_urlencoded::parse(uri.query()?.as_bytes());
    pairs.find(|(key, _)| key == "name").map(|(_, name)| short(&name))
}

fn short(text: &str) -> String {
    text.get(..text.floor_char_boundary(TEXT_MAX)).unwrap_or_default().to_owned()
}

/// A request, until its outcome is known or its client has gone: then it is told.
struct Entry {
    audit: Audit,
    who: String,
    verb: Method,
    object: String,
    name: Option<String>,
    outcome: Option<StatusCode>,
}

impl Drop for Entry {
    fn drop(&mut self) {
        let (who, verb, object) = (self.who.as_str(), self.verb.as_str(), self.object.as_str());
        let outcome = self.outcome.map_or("not known: the client has gone".to_owned(), |status| {
            status.as_u16().to_string()
        });
        let name = self.name.as_deref();
        tracing::info!(target: "audit", who, verb, object, name, outcome, "request");
        let mut attributes = BTreeMap::from([("who".to_owned(), self.who.clone())]);
        attributes.extend(self.name.take().map(|name| ("name".to_owned(), name)));
        attributes.insert("outcome".to_owned(), outcome);
        self.audit.0.tell(EventKind::Audit, self.verb.as_str(), &self.object, attributes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::Router;
    use axum::body::Body;
    use axum::middleware::from_fn_with_state;
    use axum::routing::{any, get};
    use futures_util::{FutureExt, StreamExt};
    use tower::ServiceExt;

    const SECRET: &str = "SWMTKN-1-secret";

    /// What was told of these requests, as text.
    fn told_of(requests: &[(&str, &str)]) -> Vec<String> {
        let audit = Audit::new();
        let router = Router::new()
            .route("/hangs", any(std::future::pending::<()>))
            .route("/swarm", get(|| async { SECRET }))
            .fallback(|| async { (StatusCode::CONFLICT, SECRET) })
            .layer(from_fn_with_state(audit.clone(), told));
        for (verb, uri) in requests {
            let mut request = Request::builder().method(*verb).uri(*uri);
            request = request.header("X-Registry-Auth", SECRET);
            let mut request = request.body(Body::from(SECRET)).unwrap();
            let caller = Caller::Client { subject: "CN=a\nb".to_owned() };
            request.extensions_mut().insert(caller);
            // Whoever waits no longer has gone.
            drop(router.clone().oneshot(request).now_or_never());
        }
        let mut events = audit.events(Some(Timestamp(0)), None);
        let mut told = Vec::new();
        while let Some(Some(event)) = events.next().now_or_never() {
            let event = event.unwrap();
            told.push(format!("{} {} {:?}", event.action, event.id, event.attributes));
        }
        told
    }

    #[test]
    fn what_changes_something_or_shows_a_secret_is_told_with_who_and_what_came_of_it() {
        let told = told_of(&[
            ("GET", "/services"),
            ("POST", "/containers/create?name=web&x=SWMTKN-1-secret"),
            ("DELETE", "/services/s1"),
            ("GET", "/swarm"),
            ("POST", "/hangs"),
        ]);
        let who = r#""who": "CN=a\\nb""#;
        assert_eq!(
            told,
            [
                format!(r#"POST /containers/create {{"name": "web", "outcome": "409", {who}}}"#),
                format!(r#"DELETE /services/s1 {{"outcome": "409", {who}}}"#),
                format!(r#"GET /swarm {{"outcome": "200", {who}}}"#),
                format!(r#"POST /hangs {{"outcome": "not known: the client has gone", {who}}}"#),
            ]
        );
    }

    #[test]
    fn long_names_are_cut_and_no_secret_is_told() {
        let long = format!("/containers/create?name={}", "é".repeat(1000));
        let long: String = form_urlencoded::byte_serialize(long.as_bytes()).collect();
        let long = format!("/x/{long}");
        let told = told_of(&[("POST", &long), ("POST", "/swarm/join?token=SWMTKN-1-secret")]);
        assert!(told[0].len() < 2 * TEXT_MAX, "{}", told[0].len());
        assert!(!told.concat().contains(SECRET), "{told:?}");
    }
}
