//! A connection that ends, whatever is going on, when something has come about.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::server::Connected;
use types::Timestamp;

/// However far off the end of a certificate is: clocks are set, and machines sleep.
const LOOK: Duration = Duration::from_mins(1);

/// What ends a connection.
pub(crate) type End = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A connection with its end, and what is known of it.
pub struct Bounded<S, I> {
    stream: S,
    /// `None`: it has come.
    end: Option<End>,
    info: I,
}

impl<S, I> Bounded<S, I> {
    pub(crate) fn new(stream: S, info: I, end: End) -> Self {
        Self { stream, end: Some(end), info }
    }
}

impl<S, I: Clone + Send + Sync + 'static> Connected for Bounded<S, I> {
    type ConnectInfo = I;

    fn connect_info(&self) -> I {
        self.info.clone()
    }
}

/// Waits until a certificate has expired.
pub(crate) async fn expired(expires_at: Timestamp) {
    loop {
        let left = expires_at.since(crate::clock::now());
        if left.is_zero() {
            return;
        }
        tokio::time::sleep(left.min(LOOK)).await;
    }
}

impl<S: AsyncRead + Unpin, I: Unpin> AsyncRead for Bounded<S, I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.end.as_mut().is_none_or(|end| end.as_mut().poll(cx).is_ready()) {
            self.end = None;
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin, I: Unpin> AsyncWrite for Bounded<S, I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
