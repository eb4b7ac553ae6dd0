//! Streamed answers, and requests that nobody reads.

use axum::body::Body;
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::{Stream, StreamExt, stream};
use http::header::CONTENT_TYPE;
use serde_json::Value;
use types::{Fault, Labels, Timestamp};

/// Reads a request to its end before it is refused: a client that still sends would see a broken
/// connection rather than the reason.
pub(crate) async fn received(request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    drain(body).await;
    next.run(Request::from_parts(parts, Body::empty())).await
}

/// Reads what a client still sends, and forgets it.
pub(crate) async fn drain(body: Body) {
    let mut pieces = body.into_data_stream();
    while let Some(Ok(_)) = pieces.next().await {}
}

/// Answers with JSON documents, one a line, as they come.
pub(crate) fn json_lines<S>(items: S) -> Response
where
    S: Stream<Item = Value> + Send + 'static,
{
    let lines = items.map(|item| {
        let mut line = item.to_string();
        line.push('\n');
        Ok::<_, std::convert::Infallible>(Bytes::from(line))
    });
    stream("application/json", Body::from_stream(lines))
}

/// The same, until a fault, which has a last line and breaks the answer off: no client takes what it
/// has for all there is.
pub(crate) fn unless_broken<S>(items: S) -> Response
where
    S: Stream<Item = Result<Value, (Value, Fault)>> + Send + 'static,
{
    let line = |item: &Value| Bytes::from(format!("{item}\n"));
    let pieces = items.flat_map(move |item| match item {
        Ok(item) => stream::iter([Piece::Line(line(&item))]).left_stream(),
        Err((last, fault)) => {
            stream::iter([Piece::Line(line(&last)), Piece::Broken(fault)]).right_stream()
        }
    });
    let sent = pieces.then(async |piece| match piece {
        Piece::Line(line) => Ok(line),
        Piece::Broken(fault) => {
            // What is there so far is sent before the connection is closed.
            tokio::task::yield_now().await;
            Err(fault)
        }
    });
    stream("application/json", Body::from_stream(sent))
}

/// A part of an answer.
enum Piece {
    Line(Bytes),
    Broken(Fault),
}

/// Answers with a body of this content type.
pub(crate) fn stream(content_type: &'static str, body: Body) -> Response {
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static(content_type));
    response
}

/// A line of a log in the form that clients expect.
pub(crate) struct LogForm {
    /// Frames that tell stdout and stderr apart; not with a terminal.
    pub(crate) framed: bool,
    pub(crate) timestamps: bool,
}

impl LogForm {
    /// The content type of the whole answer.
    pub(crate) fn content_type(&self) -> &'static str {
        if self.framed {
            "application/vnd.docker.multiplexed-stream"
        } else {
            "application/vnd.docker.raw-stream"
        }
    }

    /// Renders one line: `[time ][details ]text`, framed where wanted.
    pub(crate) fn render(
        &self,
        stderr: bool,
        time: Timestamp,
        details: Option<&str>,
        text: &[u8],
    ) -> Bytes {
        let mut line = BytesMut::new();
        if self.timestamps {
            line.put_slice(time.rfc3339().as_bytes());
            line.put_u8(b' ');
        }
        if let Some(details) = details {
            line.put_slice(details.as_bytes());
            line.put_u8(b' ');
        }
        line.put_slice(text);
        if self.framed { frame(stderr, &line) } else { line.freeze() }
    }
}

/// What goes with each line of a log (`docker logs --details`): `name=value`, joined by commas.
pub(crate) fn log_details(attributes: &Labels) -> String {
    let escape =
        |text: &str| -> String { form_urlencoded::byte_serialize(text.as_bytes()).collect() };
    let pairs: Vec<String> = attributes
        .iter()
        .map(|(name, value)| format!("{}={}", escape(name), escape(value)))
        .collect();
    pairs.join(",")
}

/// A frame of the multiplexed stream: stream, three zeroes, length, payload.
pub(crate) fn frame(stderr: bool, payload: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(payload.len() + 8);
    frame.put_slice(&[if stderr { 2 } else { 1 }, 0, 0, 0]);
    frame.put_u32(u32::try_from(payload.len()).unwrap_or(u32::MAX));
    frame.put_slice(payload);
    frame.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_line_is_framed_with_its_stream_and_length() {
        let form = LogForm { framed: true, timestamps: true };
        let bytes = form.render(true, Timestamp(0), Some("a=b"), b"hello\n");
        let text = b"1970-01-01T00:00:00.000000000Z a=b hello\n";
        assert_eq!(&bytes[..8], &[2, 0, 0, 0, 0, 0, 0, u8::try_from(text.len()).unwrap()]);
        assert_eq!(&bytes[8..], text);
    }

    #[test]
    fn details_of_a_line_are_its_attributes_as_docker_writes_them() {
        let form = LogForm { framed: false, timestamps: false };
        let line = |attributes: &[(&str, &str)]| {
            let pairs = attributes.iter().map(|(name, value)| ((*name).into(), (*value).into()));
            let details = log_details(&pairs.collect());
            form.render(false, Timestamp(0), Some(&details), b"x\n")
        };
        assert_eq!(line(&[("tag", "a b"), ("ZONE", "1,2=3")]), "ZONE=1%2C2%3D3,tag=a+b x\n");
        // What has no attributes still has their place.
        assert_eq!(line(&[]), " x\n");
        assert_eq!(form.render(false, Timestamp(0), None, b"x\n"), "x\n");
    }
}
