//! As much of an HTTP client as the tests need: one request, one connection, a time limit.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// A page, as far as a test looks at it.
#[derive(Clone, Debug)]
pub struct Page {
    pub status: u16,
    pub headers: String,
    pub body: String,
}

/// Asks for a page over a new connection.
pub fn page(address: &str, path: &str, limit: Duration) -> io::Result<Page> {
    let invalid = |text: &str| io::Error::new(io::ErrorKind::InvalidData, text.to_owned());
    let socket: SocketAddr = address.parse().map_err(|_invalid| invalid("no address"))?;
    let mut stream = TcpStream::connect_timeout(&socket, limit)?;
    stream.set_read_timeout(Some(limit))?;
    stream.set_write_timeout(Some(limit))?;
    // One name for the site however it is reached, or its redirects lead elsewhere.
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost:8080\r\nConnection: close\r\n\r\n")?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let (headers, body) = text.split_once("\r\n\r\n").ok_or_else(|| invalid("no headers"))?;
    let status = headers.split(' ').nth(1).and_then(|word| word.parse().ok());
    Ok(Page {
        status: status.ok_or_else(|| invalid("no status"))?,
        headers: headers.to_owned(),
        body: body.to_owned(),
    })
}

/// An answer of the API.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub body: String,
}

/// Asks a daemon at its socket, with JSON where there is some; `None` where the answer has not ended
/// within `limit`.
pub(crate) fn ask(
    socket: &Path,
    (method, target): (&str, &str),
    json: &str,
    limit: Duration,
) -> io::Result<Option<Answer>> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(limit))?;
    // Of the older version, so that the end of the connection is the end of the answer.
    write!(stream, "{method} {target} HTTP/1.0\r\nHost: docker\r\n")?;
    if !json.is_empty() {
        let length = json.len();
        write!(stream, "Content-Type: application/json\r\nContent-Length: {length}\r\n")?;
    }
    write!(stream, "\r\n{json}")?;
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
        other => other?,
    };
    let text = String::from_utf8_lossy(&bytes);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or_default();
    Ok(Some(Answer { status, body: body.to_owned() }))
}
