//! Streamed answers, and requests that nobody reads.

use crate::error::ApiError;
use crate::request::BODY_MAX;
use axum::body::Body;
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::{Stream, StreamExt};
use http::header::CONTENT_TYPE;
use types::{Fault, Timestamp};

/// Reads a request to its end before it is refused: a client that still sends would see a broken
/// connection rather than the reason.
pub(crate) async fn received(request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    match axum::body::to_bytes(body, BODY_MAX).await {
        Ok(bytes) => next.run(Request::from_parts(parts, Body::from(bytes))).await,
        Err(error) => {
            let text = format!("cannot read the request's body: {error}");
            ApiError(Fault::invalid(text)).into_response()
        }
    }
}

/// Answers with JSON documents, one a line, as they come.
pub(crate) fn json_lines<S>(items: S) -> Response
where
    S: Stream<Item = serde_json::Value> + Send + 'static,
{
    let lines = items.map(|item| {
        let mut line = item.to_string();
        line.push('\n');
        Ok::<_, std::convert::Infallible>(Bytes::from(line))
    });
    stream("application/json", Body::from_stream(lines))
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
        details: &str,
        text: &[u8],
    ) -> Bytes {
        let mut line = BytesMut::new();
        if self.timestamps {
            line.put_slice(time.rfc3339().as_bytes());
            line.put_u8(b' ');
        }
        if !details.is_empty() {
            line.put_slice(details.as_bytes());
            line.put_u8(b' ');
        }
        line.put_slice(text);
        if self.framed { frame(stderr, &line) } else { line.freeze() }
    }
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
        let bytes = form.render(true, Timestamp(0), "a=b", b"hello\n");
        let text = b"1970-01-01T00:00:00.000000000Z a=b hello\n";
        assert_eq!(&bytes[..8], &[2, 0, 0, 0, 0, 0, 0, u8::try_from(text.len()).unwrap()]);
        assert_eq!(&bytes[8..], text);
    }
}
