//! Standard streams over an upgraded connection: attach, and exec with streams.

use crate::body::frame;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use bytes::Bytes;
use engine::Attached;
use http::header::{CONNECTION, CONTENT_TYPE, UPGRADE};
use http::{HeaderValue, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio_util::task::TaskTracker;

/// Answers with the process's streams: 101 where the client asked for an upgrade, as docker does,
/// else 200 and output alone.
pub(crate) fn answer(mut request: Request, attached: Attached) -> Response {
    let content_type = if attached.tty {
        "application/vnd.docker.raw-stream"
    } else {
        "application/vnd.docker.multiplexed-stream"
    };
    let wants_upgrade = request.headers().contains_key(UPGRADE);
    let upgrade = hyper::upgrade::on(&mut request);
    if !wants_upgrade {
        let tty = attached.tty;
        let output = tokio_stream::wrappers::ReceiverStream::new(attached.output);
        let bytes = futures_util::StreamExt::map(output, move |chunk| {
            Ok::<_, std::convert::Infallible>(render(tty, &chunk))
        });
        return crate::body::stream(content_type, Body::from_stream(bytes));
    }
    // It lives as long as the connection, which ends with the process or the client.
    drop(TaskTracker::new().spawn(async move {
        match upgrade.await {
            Ok(stream) => carry(TokioIo::new(stream), attached).await,
            Err(error) => tracing::debug!(%error, "connection was not upgraded"),
        }
    }));
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("tcp"));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

fn render(tty: bool, chunk: &engine::Chunk) -> Bytes {
    if tty { chunk.bytes.clone() } else { frame(chunk.stderr, &chunk.bytes) }
}

/// Carries input and output until the output ends or the client goes.
async fn carry<S>(stream: S, attached: Attached)
where
    S: AsyncRead + AsyncWrite,
{
    let (mut from_client, mut to_client) = tokio::io::split(stream);
    let Attached { tty, mut output, input } = attached;
    let input = async {
        if let Some(mut input) = input {
            let _client_or_process_went = tokio::io::copy(&mut from_client, &mut input).await;
            let _already_closed = input.shutdown().await;
        }
        // The end of input is not the end of the connection.
        std::future::pending::<()>().await;
    };
    let output = async {
        while let Some(chunk) = output.recv().await {
            if to_client.write_all(&render(tty, &chunk)).await.is_err() {
                break;
            }
        }
        let _client_went = to_client.shutdown().await;
    };
    tokio::select! {
        () = input => {}
        () = output => {}
    }
}
