//! A connection to a receiver of logs.

use super::address::{Address, host_of};
use super::{Message, tls};
use nix::errno::Errno;
use nix::sys::socket::{self, MsgFlags};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::path::Path;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket, UnixDatagram, UnixStream};
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

/// A receiver that is there answers sooner.
const CONNECT_MAX: Duration = Duration::from_secs(3);
/// What is there already is read sooner.
const UNASKED_MAX: Duration = Duration::from_millis(20);
/// An answer is no longer.
const ACK_MAX: usize = 1 << 10;

pub(crate) enum Link {
    Stream(Box<dyn Stream>),
    Udp(UdpSocket),
    Datagrams(UnixDatagram),
}

pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {
    fn socket(&self) -> RawFd;
}

impl Stream for TcpStream {
    fn socket(&self) -> RawFd {
        self.as_raw_fd()
    }
}

impl Stream for UnixStream {
    fn socket(&self) -> RawFd {
        self.as_raw_fd()
    }
}

impl Stream for TlsStream<TcpStream> {
    fn socket(&self) -> RawFd {
        self.get_ref().0.as_raw_fd()
    }
}

impl Link {
    /// Connects. Errors are in Go's words, as users of Docker know them.
    pub(super) async fn open(address: &Address, tls: &tls::Files) -> io::Result<Self> {
        let opened = timeout(CONNECT_MAX, Self::dial(address, tls)).await;
        let why = match opened {
            Ok(Ok(link)) => return Ok(link),
            Ok(Err(error)) => (error.kind(), cause(&error)),
            Err(_elapsed) => (io::ErrorKind::TimedOut, "i/o timeout".to_owned()),
        };
        Err(io::Error::new(why.0, format!("dial {} {address}: {}", address.network(), why.1)))
    }

    async fn dial(address: &Address, tls: &tls::Files) -> io::Result<Self> {
        Ok(match address {
            Address::Tcp(host) => Self::Stream(Box::new(TcpStream::connect(host).await?)),
            Address::Tls(host) => {
                let stream = TcpStream::connect(host).await?;
                Self::Stream(Box::new(tls::wrap(stream, host_of(host), tls).await?))
            }
            Address::Udp(host) => Self::Udp(udp(host).await?),
            Address::Stream(path) => Self::Stream(Box::new(UnixStream::connect(path).await?)),
            Address::Datagrams(path) => Self::Datagrams(datagrams(path)?),
            Address::Local(paths) => return local(paths).await,
        })
    }

    /// Sends a message, and waits for the answer to it where there is to be one. What was sent to a
    /// receiver that had ended the connection already would be lost without a word: it is asked first.
    pub(super) async fn send(&mut self, message: &Message, limit: Duration) -> io::Result<()> {
        let sending = async {
            if self.has_ended().await {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            self.write(message).await
        };
        timeout(limit, sending).await?
    }

    /// The kernel is asked itself: what tokio knows may be older. What a receiver says unasked, as the
    /// tickets of TLS 1.3, is read, since its end comes behind that.
    async fn has_ended(&mut self) -> bool {
        let Self::Stream(stream) = self else { return false };
        loop {
            let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
            match socket::recv(stream.socket(), &mut [0], flags) {
                Ok(1..) => {}
                Err(Errno::EAGAIN | Errno::EINTR) => return false,
                Ok(0) | Err(_) => return true,
            }
            // Nothing is read where it was meant for TLS itself.
            match timeout(UNASKED_MAX, stream.read(&mut [0; 512])).await {
                Ok(Ok(1..)) | Err(_) => {}
                Ok(Ok(0) | Err(_)) => return true,
            }
        }
    }

    async fn write(&mut self, message: &Message) -> io::Result<()> {
        for piece in &message.pieces {
            match self {
                Self::Stream(stream) => stream.write_all(piece).await?,
                Self::Udp(socket) => drop(socket.send(piece).await?),
                Self::Datagrams(socket) => drop(socket.send(piece).await?),
            }
        }
        let Self::Stream(stream) = self else { return Ok(()) };
        stream.flush().await?;
        match &message.ack {
            Some(ack) => answered(stream, ack).await,
            None => Ok(()),
        }
    }
}

/// Reads `{"ack": ack}`, as MessagePack.
async fn answered(stream: &mut Box<dyn Stream>, ack: &str) -> io::Result<()> {
    let mut wanted = Vec::new();
    let written = rmp::encode::write_map_len(&mut wanted, 1)
        .and_then(|_| rmp::encode::write_str(&mut wanted, "ack"))
        .and_then(|()| rmp::encode::write_str(&mut wanted, ack));
    written.map_err(io::Error::other)?;
    if ACK_MAX < wanted.len() {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut answer = vec![0; wanted.len()];
    stream.read_exact(&mut answer).await?;
    if answer == wanted { Ok(()) } else { Err(io::Error::other("another answer than asked for")) }
}

async fn udp(host: &str) -> io::Result<UdpSocket> {
    let address = tokio::net::lookup_host(host).await?.next();
    let address = address.ok_or_else(|| io::Error::other("no such host"))?;
    let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(address).await?;
    Ok(socket)
}

fn datagrams(path: &Path) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.connect(path)?;
    Ok(socket)
}

/// The machine's own syslog: its socket may be of either kind.
async fn local(paths: &[&str]) -> io::Result<Link> {
    for path in paths {
        if let Ok(socket) = datagrams(Path::new(path)) {
            return Ok(Link::Datagrams(socket));
        }
        if let Ok(stream) = UnixStream::connect(path).await {
            return Ok(Link::Stream(Box::new(stream)));
        }
    }
    Err(io::Error::new(io::ErrorKind::NotFound, "Unix syslog delivery error"))
}

fn cause(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connect: connection refused".to_owned(),
        io::ErrorKind::NotFound if error.raw_os_error().is_some() => {
            "connect: no such file or directory".to_owned()
        }
        _ => error.to_string(),
    }
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Link")
    }
}
