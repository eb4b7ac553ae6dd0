//! The syslog driver: lines as RFC 3164 and RFC 5424 have them.

use super::address::Address;
use super::{text, tls, unknown};
use crate::logs::LogEntry;
use crate::logs::options::Own;
use crate::logs::source::Source;
use std::path::PathBuf;
use time::OffsetDateTime;
use time::format_description::StaticFormatDescription;
use time::macros::format_description;
use types::{Fault, Timestamp};

const PORT: u16 = 514;
/// The machine's own syslog.
const LOCAL: &[&str] = &["/dev/log", "/var/run/syslog", "/var/run/log"];
const FACILITIES: [&str; 24] = [
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv",
    "ftp", "", "", "", "", "local0", "local1", "local2", "local3", "local4", "local5", "local6",
    "local7",
];
const DAEMON: u8 = 3;
const ERROR: u8 = 3;
const INFO: u8 = 6;

#[derive(Clone, Debug)]
pub(crate) struct Syslog {
    pub(super) address: Address,
    pub(super) tls: tls::Files,
    facility: u8,
    format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    /// What the machine's own syslog reads.
    Unix,
    Rfc3164,
    Rfc5424 {
        micro: bool,
    },
}

impl Syslog {
    pub(super) fn parse(own: &Own<'_>) -> Result<Self, Fault> {
        let mut parsed = Self {
            address: Address::Local(LOCAL),
            tls: tls::Files::default(),
            facility: DAEMON,
            format: Format::Unix,
        };
        let file = |value: &str| (!value.is_empty()).then(|| PathBuf::from(value));
        for (name, value) in own {
            match *name {
                "syslog-address" | "syslog-facility" if value.is_empty() => {}
                "syslog-address" => {
                    let address = Address::parse(value, Some(PORT));
                    // Docker's word for TLS here is this one alone.
                    let address = address.filter(|_| !value.starts_with("tls://"));
                    parsed.address = address.ok_or_else(|| {
                        Fault::invalid(format!(
                            "syslog-address should be in form proto://address, got {value}"
                        ))
                    })?;
                }
                "syslog-facility" => parsed.facility = facility(value)?,
                "syslog-format" => parsed.format = format(value)?,
                "syslog-tls-ca-cert" => parsed.tls.ca = file(value),
                "syslog-tls-cert" => parsed.tls.cert = file(value),
                "syslog-tls-key" => parsed.tls.key = file(value),
                // As with Docker, whatever it says.
                "syslog-tls-skip-verify" => parsed.tls.skip_verify = true,
                _ => return Err(unknown(name, "syslog")),
            }
        }
        if parsed.tls.cert.is_some() != parsed.tls.key.is_some() {
            return Err(Fault::invalid("syslog-tls-cert and syslog-tls-key go together"));
        }
        Ok(parsed)
    }

    pub(super) fn pieces(&self, source: &Source, entry: &LogEntry) -> Vec<Vec<u8>> {
        let text = text(entry);
        if text.is_empty() {
            return Vec::new();
        }
        let severity = if entry.stderr { ERROR } else { INFO };
        let (priority, pid) = (self.facility * 8 + severity, std::process::id());
        let (tag, host) = (&source.tag, &source.host);
        let mut line = match self.format {
            Format::Unix => format!("<{priority}>{} {tag}[{pid}]: {text}\n", stamp(entry.time)),
            Format::Rfc3164 => {
                format!("<{priority}>{} {host} {tag}[{pid}]: {text}\n", stamp(entry.time))
            }
            Format::Rfc5424 { micro } => {
                let time = if micro { micros(entry.time) } else { seconds(entry.time) };
                format!("<{priority}>1 {time} {host} {tag} {pid} {tag} - {text}\n")
            }
        };
        // RFC 5425: by TLS, a message says how long it is.
        if let (Address::Tls(_), Format::Rfc5424 { .. }) = (&self.address, self.format) {
            line = format!("{} {line}", line.len());
        }
        vec![line.into_bytes()]
    }
}

fn facility(value: &str) -> Result<u8, Fault> {
    let named = FACILITIES.iter().position(|name| *name == value && !name.is_empty());
    let number = value.parse().ok().filter(|number: &usize| *number < FACILITIES.len());
    let found = named.or(number).and_then(|number| u8::try_from(number).ok());
    found.ok_or_else(|| Fault::invalid("invalid syslog facility"))
}

fn format(value: &str) -> Result<Format, Fault> {
    match value {
        "" => Ok(Format::Unix),
        "rfc3164" => Ok(Format::Rfc3164),
        "rfc5424" => Ok(Format::Rfc5424 { micro: false }),
        "rfc5424micro" => Ok(Format::Rfc5424 { micro: true }),
        _ => Err(Fault::invalid("Invalid syslog format")),
    }
}

/// `Nov 14 22:13:20`, in UTC.
fn stamp(time: Timestamp) -> String {
    let format =
        format_description!("[month repr:short] [day padding:space] [hour]:[minute]:[second]");
    render(time, format)
}

fn seconds(time: Timestamp) -> String {
    render(time, format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]Z"))
}

fn micros(time: Timestamp) -> String {
    let format =
        format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]Z");
    render(time, format)
}

fn render(time: Timestamp, format: StaticFormatDescription) -> String {
    let time = OffsetDateTime::from_unix_timestamp_nanos(i128::from(time.0));
    time.ok().and_then(|time| time.format(format).ok()).unwrap_or_else(|| "-".to_owned())
}
