//! Standard streams over an upgraded connection: attach, and exec with streams.

use super::detach::Watch;
use crate::body::frame;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use bytes::Bytes;
use engine::{Attached, Chunk};
use futures_util::{FutureExt, StreamExt};
use http::header::{CONNECTION, CONTENT_TYPE, UPGRADE};
use http::{HeaderValue, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::TaskTracker;
use types::Fault;

/// Answers with a process's streams: 101 where the client asked for an upgrade, as docker does,
/// else 200 and output alone. With a terminal (`tty`), the client leaves by the `keys`.
///
/// The head goes out before `start` is asked for the streams: some clients lose what comes along
/// with it. Why there are no streams is told in their place.
pub(crate) fn answer<F>(mut request: Request, tty: bool, keys: Vec<u8>, start: F) -> Response
where
    F: Future<Output = Result<Attached, Fault>> + Send + 'static,
{
    let content_type = if tty {
        "application/vnd.docker.raw-stream"
    } else {
        "application/vnd.docker.multiplexed-stream"
    };
    let start = start.map(move |started| started.unwrap_or_else(|fault| not_started(tty, &fault)));
    let wants_upgrade = request.headers().contains_key(UPGRADE);
    let upgrade = hyper::upgrade::on(&mut request);
    if !wants_upgrade {
        let output = futures_util::stream::once(start)
            .flat_map(|attached| ReceiverStream::new(attached.output))
            .map(move |chunk| Ok::<_, std::convert::Infallible>(render(tty, &chunk)));
        return crate::body::stream(content_type, Body::from_stream(output));
    }
    // It lives as long as the connection, which ends with the process or the client.
    drop(TaskTracker::new().spawn(async move {
        match upgrade.await {
            Ok(stream) => carry(TokioIo::new(stream), start.await, Watch::new(keys)).await,
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

/// Streams of a process that could not be started: the reason, and the end.
fn not_started(tty: bool, fault: &Fault) -> Attached {
    let (sink, output) = mpsc::channel(1);
    let bytes = Bytes::from(format!("{}\r\n", fault.message));
    let _sent = sink.try_send(Chunk { stderr: false, bytes });
    Attached { tty, output, input: None }
}

fn render(tty: bool, chunk: &Chunk) -> Bytes {
    if tty { chunk.bytes.clone() } else { frame(chunk.stderr, &chunk.bytes) }
}

/// Carries input and output until the output ends or the client goes or leaves.
async fn carry<S>(stream: S, attached: Attached, watch: Watch)
where
    S: AsyncRead + AsyncWrite,
{
    let (from_client, mut to_client) = tokio::io::split(stream);
    let Attached { tty, mut output, input } = attached;
    let input = async {
        if let Some(input) = input
            && feed(from_client, input, tty.then_some(watch)).await
        {
            return;
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
    };
    tokio::select! {
        () = input => {}
        () = output => {}
    }
    let _client_went = to_client.shutdown().await;
}

/// Copies input until the client ends it or the process goes. Says whether the client left by the
/// keys that are watched for: then what runs there goes on.
async fn feed<R, W>(mut client: R, mut input: W, mut watch: Option<Watch>) -> bool
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut buffer = vec![0; 16 << 10];
    while let Ok(count @ 1..) = client.read(&mut buffer).await {
        let bytes = &buffer[..count];
        let (bytes, leaves) = match &mut watch {
            Some(watch) => watch.feed(bytes),
            None => (bytes.to_vec(), false),
        };
        let written = input.write_all(&bytes).await;
        if leaves {
            return true;
        }
        if written.is_err() {
            break;
        }
    }
    let rest = watch.map(Watch::rest).unwrap_or_default();
    let _process_went = input.write_all(&rest).await;
    let _already_closed = input.shutdown().await;
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;
    use std::time::Duration;
    use tokio::io::DuplexStream;
    use tokio::sync::oneshot;

    const PATIENCE: Duration = Duration::from_secs(20);

    /// A client's connection, and the process's ends: its input and what it writes to.
    fn connect(tty: bool) -> (DuplexStream, DuplexStream, mpsc::Sender<Chunk>) {
        let (client, server) = tokio::io::duplex(1024);
        let (input, process) = tokio::io::duplex(1024);
        let (sink, output) = mpsc::channel(1);
        let attached = Attached { tty, output, input: Some(input) };
        let carrying = carry(server, attached, Watch::new(vec![b'a', b'b']));
        drop(TaskTracker::new().spawn(carrying));
        (client, process, sink)
    }

    async fn all(mut stream: impl AsyncRead + Unpin) -> Vec<u8> {
        let mut bytes = Vec::new();
        let reading = stream.read_to_end(&mut bytes);
        tokio::time::timeout(PATIENCE, reading).await.unwrap().unwrap();
        bytes
    }

    #[tokio::test]
    async fn a_client_leaves_a_terminal_by_its_keys() {
        let (mut client, process, sink) = connect(true);
        client.write_all(b"ls").await.unwrap();
        client.write_all(b"a").await.unwrap();
        client.write_all(b"b").await.unwrap();
        assert_eq!(all(client).await, b"");
        assert_eq!(all(process).await, b"ls");
        // Nobody takes the output any more, which is not the end of the process.
        sink.closed().await;
    }

    #[tokio::test]
    async fn without_a_terminal_keys_are_text() {
        let (mut client, process, sink) = connect(false);
        client.write_all(b"lsab").await.unwrap();
        client.shutdown().await.unwrap();
        assert_eq!(all(process).await, b"lsab");
        sink.send(Chunk { stderr: false, bytes: Bytes::from("x") }).await.unwrap();
        drop(sink);
        assert_eq!(all(client).await, b"\x01\0\0\0\0\0\0\x01x");
    }

    /// A client's connection to a server that answers with the streams that `start` gives, once it
    /// is told to.
    fn serve(tty: bool, started: oneshot::Receiver<Result<Attached, Fault>>) -> DuplexStream {
        let (client, server) = tokio::io::duplex(1024);
        let started = std::sync::Mutex::new(Some(started));
        let service = hyper::service::service_fn(move |request: hyper::Request<_>| {
            let started = started.lock().unwrap().take().unwrap();
            let start = async move { started.await.unwrap() };
            let answered = answer(request.map(Body::new), tty, Vec::new(), start);
            std::future::ready(Ok::<_, Infallible>(answered))
        });
        let http = hyper::server::conn::http1::Builder::new();
        let serving = http.serve_connection(TokioIo::new(server), service).with_upgrades();
        drop(TaskTracker::new().spawn(serving));
        client
    }

    async fn head(client: &mut DuplexStream) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let reading = client.read_u8();
            head.push(tokio::time::timeout(PATIENCE, reading).await.unwrap().unwrap());
        }
        String::from_utf8(head).unwrap()
    }

    #[tokio::test]
    async fn the_head_goes_out_before_the_process_is_started() {
        for (tty, upgrade) in [(true, true), (false, true), (false, false)] {
            let (start, started) = oneshot::channel();
            let mut client = serve(tty, started);
            let upgraded = if upgrade { "Connection: Upgrade\r\nUpgrade: tcp\r\n" } else { "" };
            let request = format!("POST / HTTP/1.1\r\nHost: d\r\n{upgraded}\r\n");
            client.write_all(request.as_bytes()).await.unwrap();
            let head = head(&mut client).await;
            assert!(
                head.starts_with(if upgrade { "HTTP/1.1 101" } else { "HTTP/1.1 200" }),
                "{head}"
            );
            // It never comes to be: the reason takes the place of its output.
            start.send(Err(Fault::conflict("it is gone"))).unwrap();
            let told = "it is gone\r\n";
            let wanted = if tty { told.to_owned() } else { format!("\x01\0\0\0\0\0\0\x0c{told}") };
            if upgrade {
                assert_eq!(String::from_utf8(all(client).await).unwrap(), wanted);
            } else {
                let mut body = vec![0; wanted.len() + 4];
                client.read_exact(&mut body).await.unwrap();
                assert!(body.ends_with(wanted.as_bytes()), "{body:?}");
            }
        }
    }
}
