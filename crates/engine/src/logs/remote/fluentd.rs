//! The fluentd driver: Fluentd's forward protocol, one event a message.

use super::address::{Address, host_port};
use super::{Message, PAUSE_MIN, Part, Patience, WRITE_MAX, text, unknown};
use crate::logs::LogEntry;
use crate::logs::options::{Own, boolean};
use crate::logs::source::Source;
use std::ops::RangeInclusive;
use std::time::Duration;
use types::{Fault, Timestamp, parse_duration, parse_size};

const PORT: u16 = 24224;
/// Events that wait, where nobody says how many.
const BUFFER: u64 = 1 << 20;
const RENEWED_AFTER: RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_secs(10);
const NANOS: i64 = 1_000_000_000;

#[derive(Clone, Debug)]
pub(crate) struct Fluentd {
    pub(super) address: Address,
    pub(super) patience: Patience,
    /// Containers start and write without it, as far as the buffer goes.
    pub(super) is_async: bool,
    /// Events that may wait.
    pub(super) buffer: u64,
    pub(super) write_max: Duration,
    /// An asynchronous connection is not kept for longer.
    pub(super) renewed_after: Option<Duration>,
    ack: bool,
    precise: bool,
}

impl Fluentd {
    pub(super) fn parse(own: &Own<'_>) -> Result<Self, Fault> {
        let mut parsed = Self {
            address: Address::Tcp(format!("127.0.0.1:{PORT}")),
            patience: Patience { again: u32::MAX, pause: Duration::from_secs(1), grows: true },
            is_async: false,
            buffer: BUFFER,
            write_max: WRITE_MAX,
            renewed_after: None,
            ack: false,
            precise: false,
        };
        for (name, value) in own {
            let wrong = || Fault::invalid(format!("invalid value for {name}: {value}"));
            let duration = || parse_duration(value).ok_or_else(wrong);
            match *name {
                _ if value.is_empty() && name.starts_with("fluentd-") => {}
                "fluentd-address" => parsed.address = address(value)?,
                "fluentd-async" => parsed.is_async = boolean(name, value)?,
                "fluentd-buffer-limit" => {
                    let limit = parse_size(value).and_then(|limit| u64::try_from(limit).ok());
                    parsed.buffer = limit.filter(|limit| 0 < *limit).ok_or_else(wrong)?;
                }
                "fluentd-max-retries" => {
                    parsed.patience.again = value.parse().map_err(|_no_number| wrong())?;
                }
                // Nothing is what is usual, as with Fluentd's own client.
                "fluentd-retry-wait" => match duration()? {
                    Duration::ZERO => {}
                    pause => parsed.patience.pause = pause.max(PAUSE_MIN),
                },
                "fluentd-write-timeout" => parsed.write_max = duration()?,
                "fluentd-async-reconnect-interval" => {
                    let interval = duration()?;
                    if !RENEWED_AFTER.contains(&interval) {
                        let text = format!("{name}={value} must be between 100ms and 10s");
                        return Err(Fault::invalid(text));
                    }
                    parsed.renewed_after = Some(interval);
                }
                "fluentd-request-ack" => parsed.ack = boolean(name, value)?,
                "fluentd-sub-second-precision" => parsed.precise = boolean(name, value)?,
                _ => return Err(unknown(name, "fluentd")),
            }
        }
        Ok(parsed)
    }

    pub(super) fn message(
        &self,
        source: &Source,
        (entry, part): (&LogEntry, Option<&Part>),
        number: u64,
    ) -> Message {
        let ack = self.ack.then(|| format!("{}-{number}", source.id));
        let mut bytes = Vec::new();
        // Written to memory, this does not fail; what is too long for a length is not there.
        let written = self.write(&mut bytes, (source, entry, part), ack.as_deref());
        if written.is_err() {
            return Message::default();
        }
        Message { pieces: vec![bytes], ack }
    }

    fn write(
        &self,
        out: &mut Vec<u8>,
        (source, entry, part): (&Source, &LogEntry, Option<&Part>),
        ack: Option<&str>,
    ) -> Result<(), rmp::encode::ValueWriteError> {
        rmp::encode::write_array_len(out, 4)?;
        rmp::encode::write_str(out, &source.tag)?;
        self.write_time(out, entry.time)?;
        write_map(out, &record(source, entry, part))?;
        let option = ack.map(|ack| ("chunk".to_owned(), ack.to_owned()));
        write_map(out, &option.into_iter().collect::<Vec<_>>())
    }

    /// Seconds, or Fluentd's own type with nanoseconds.
    fn write_time(
        &self,
        out: &mut Vec<u8>,
        time: Timestamp,
    ) -> Result<(), rmp::encode::ValueWriteError> {
        let seconds = u64::try_from(time.0.div_euclid(NANOS)).unwrap_or_default();
        let nanos = u32::try_from(time.0.rem_euclid(NANOS)).unwrap_or_default();
        if !self.precise {
            rmp::encode::write_uint(out, seconds)?;
            return Ok(());
        }
        rmp::encode::write_ext_meta(out, 8, 0)?;
        out.extend(u32::try_from(seconds).unwrap_or(u32::MAX).to_be_bytes());
        out.extend(nanos.to_be_bytes());
        Ok(())
    }
}

fn write_map(
    out: &mut Vec<u8>,
    pairs: &[(String, String)],
) -> Result<(), rmp::encode::ValueWriteError> {
    rmp::encode::write_map_len(out, u32::try_from(pairs.len()).unwrap_or_default())?;
    for (name, value) in pairs {
        rmp::encode::write_str(out, name)?;
        rmp::encode::write_str(out, value)?;
    }
    Ok(())
}

fn record(source: &Source, entry: &LogEntry, part: Option<&Part>) -> Vec<(String, String)> {
    let own = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let mut record = vec![
        own("container_id", &source.id),
        own("container_name", &format!("/{}", source.name)),
        own("source", if entry.stderr { "stderr" } else { "stdout" }),
        own("log", &text(entry)),
    ];
    record.extend(source.attributes.iter().map(|(name, value)| own(name, value)));
    if let Some(part) = part {
        record.push(own("partial_message", "true"));
        record.push(own("partial_id", &part.id));
        record.push(own("partial_ordinal", &part.ordinal.to_string()));
        record.push(own("partial_last", &part.last.to_string()));
    }
    record
}

fn address(text: &str) -> Result<Address, Fault> {
    let wrong = || Fault::invalid(format!("invalid fluentd-address {text}"));
    if !text.contains("://") {
        return host_port(text, Some(PORT)).map(Address::Tcp).ok_or_else(wrong);
    }
    match Address::parse(text, Some(PORT)) {
        Some(address @ (Address::Tcp(_) | Address::Tls(_) | Address::Stream(_))) => Ok(address),
        _ => Err(wrong()),
    }
}
