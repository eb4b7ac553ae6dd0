//! Log drivers that send lines elsewhere: `syslog`, `gelf`, `fluentd`, `journald`.
//!
//! What a line becomes is pure (`syslog`, `gelf`, `fluentd`, `journald`); `link` carries bytes, and
//! `courier` has the queue, tries again, and counts what is lost.
//!
//! Invariants: what waits to be sent is bounded, and so is the time that a stop waits for it. What is
//! lost is counted and said in the daemon's log. A daemon that ends puts what it has not sent yet beside
//! the container's record, and the next one sends it first; what containers write meanwhile is put aside
//! by `stand_in` as ever.

mod address;
mod courier;
mod fluentd;
mod gelf;
mod journald;
mod link;
mod syslog;
#[cfg(test)]
mod tests;
mod tls;

pub(crate) use courier::Courier;
pub(crate) use link::Link;

use super::options::Own;
use super::source::Source;
use super::{LogEntry, Options};
use address::Address;
use std::path::{Path, PathBuf};
use std::time::Duration;
use types::Fault;

/// A receiver that reads no more is away.
const WRITE_MAX: Duration = Duration::from_secs(10);

/// Between two tries, whatever an option says: they are not to keep a processor busy.
const PAUSE_MIN: Duration = Duration::from_millis(10);

/// What is sent, and where to.
#[derive(Clone, Debug)]
pub(crate) enum Protocol {
    Syslog(syslog::Syslog),
    Gelf(gelf::Gelf),
    Fluentd(fluentd::Fluentd),
    Journald,
}

/// Where the lines of one container go.
#[derive(Debug)]
pub(crate) struct Remote {
    protocol: Protocol,
    address: Address,
    source: Source,
    /// As [`Options::buffer`].
    buffer: Option<u64>,
    /// What a daemon had not sent yet when it ended.
    unsent: PathBuf,
}

/// A piece of a line that was too long.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Part {
    id: String,
    /// Counts from 1.
    ordinal: u32,
    last: bool,
}

/// How often something is tried again, and after how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Patience {
    again: u32,
    pause: Duration,
    /// The pause grows by half each time, up to a minute.
    grows: bool,
}

/// What a line becomes.
#[derive(Debug, Default, PartialEq, Eq)]
struct Message {
    /// Written one after the other; of datagrams, each is one.
    pieces: Vec<Vec<u8>>,
    /// The receiver answers with this.
    ack: Option<String>,
}

impl Protocol {
    /// Reads a driver's own options.
    pub(super) fn parse(driver: &str, own: &Own<'_>) -> Result<Self, Fault> {
        match driver {
            "syslog" => syslog::Syslog::parse(own).map(Self::Syslog),
            "gelf" => gelf::Gelf::parse(own).map(Self::Gelf),
            "fluentd" => fluentd::Fluentd::parse(own).map(Self::Fluentd),
            _ => match own.keys().next() {
                Some(name) => Err(unknown(name, driver)),
                None => Ok(Self::Journald),
            },
        }
    }

    fn address(&self, journal: &Path) -> Address {
        match self {
            Self::Syslog(it) => it.address.clone(),
            Self::Gelf(it) => it.address.clone(),
            Self::Fluentd(it) => it.address.clone(),
            Self::Journald => Address::Datagrams(journal.to_owned()),
        }
    }

    fn message(
        &self,
        source: &Source,
        (entry, part): (&LogEntry, Option<&Part>),
        number: u64,
    ) -> Message {
        let pieces = match self {
            Self::Syslog(it) => it.pieces(source, entry),
            Self::Gelf(it) => it.pieces(source, entry),
            Self::Fluentd(it) => return it.message(source, (entry, part), number),
            Self::Journald => vec![journald::datagram(source, (entry, part), number)],
        };
        Message { pieces, ack: None }
    }

    /// With a connection that has just failed for one more try, as Docker does.
    fn patience(&self) -> Patience {
        match self {
            Self::Gelf(it) => it.patience,
            Self::Fluentd(it) => it.patience,
            Self::Syslog(_) | Self::Journald => {
                Patience { again: 1, pause: Duration::ZERO, grows: false }
            }
        }
    }

    /// How long a message may take, and how old a connection becomes, where that is limited.
    fn limits(&self) -> (Duration, Option<Duration>) {
        match self {
            Self::Fluentd(it) => (it.write_max, it.renewed_after),
            Self::Syslog(_) | Self::Gelf(_) | Self::Journald => (WRITE_MAX, None),
        }
    }

    /// A container starts without its receiver.
    fn is_async(&self) -> bool {
        matches!(self, Self::Fluentd(it) if it.is_async)
    }
}

impl Remote {
    pub(crate) fn new(
        options: &Options,
        source: Source,
        (folder, journal): (&Path, &Path),
    ) -> Option<Self> {
        let protocol = options.protocol.clone()?;
        Some(Self {
            address: protocol.address(journal),
            unsent: folder.join("unsent.log"),
            buffer: options.buffer,
            protocol,
            source,
        })
    }

    /// Connects before a container starts: one whose lines nobody takes does not, as with Docker.
    pub(crate) async fn connect(&self) -> Result<Option<Link>, Fault> {
        if self.protocol.is_async() {
            return Ok(None);
        }
        let failed = |error: std::io::Error| {
            let why = match &self.protocol {
                Protocol::Journald => "journald is not enabled on this host".to_owned(),
                Protocol::Gelf(_) => format!("gelf: cannot connect to GELF endpoint: {error}"),
                Protocol::Syslog(_) | Protocol::Fluentd(_) => error.to_string(),
            };
            Fault::internal(format!("failed to initialize logging driver: {why}"))
        };
        self.open().await.map(Some).map_err(failed)
    }

    async fn open(&self) -> std::io::Result<Link> {
        let tls = match &self.protocol {
            Protocol::Syslog(it) => it.tls.clone(),
            Protocol::Fluentd(_) | Protocol::Gelf(_) | Protocol::Journald => tls::Files::default(),
        };
        Link::open(&self.address, &tls).await
    }
}

fn unknown(name: &str, driver: &str) -> Fault {
    Fault::invalid(format!("unknown log opt '{name}' for {driver} log driver"))
}

/// A line without its end.
fn text(entry: &LogEntry) -> std::borrow::Cow<'_, str> {
    let bytes = entry.bytes.strip_suffix(b"\n").unwrap_or(&entry.bytes);
    String::from_utf8_lossy(bytes)
}
