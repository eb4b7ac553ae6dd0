//! The gelf driver: Graylog's JSON, in UDP chunks, or by TCP with a zero byte after each message.

use super::address::Address;
use super::{PAUSE_MIN, Patience, text};
use crate::logs::LogEntry;
use crate::logs::options::Own;
use crate::logs::source::Source;
use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use serde_json::{Map, Value};
use std::io::Write;
use std::time::Duration;
use types::Fault;

/// A datagram goes through every network without being cut.
const CHUNK: usize = 1420;
const CHUNK_HEAD: usize = 12;
/// GELF has no more.
const CHUNKS_MAX: usize = 128;
const OPTIONS: [&str; 5] = [
    "gelf-address",
    "gelf-compression-level",
    "gelf-compression-type",
    "gelf-tcp-max-reconnect",
    "gelf-tcp-reconnect-delay",
];
const ERROR: u8 = 3;
const INFO: u8 = 6;

#[derive(Clone, Debug)]
pub(crate) struct Gelf {
    pub(super) address: Address,
    pub(super) patience: Patience,
    compression: Kind,
    level: Compression,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Gzip,
    Zlib,
    None,
}

impl Gelf {
    pub(super) fn parse(own: &Own<'_>) -> Result<Self, Fault> {
        if let Some(name) = own.keys().find(|name| !OPTIONS.contains(name)) {
            let reason = format!("unknown log opt {name:?} for gelf log driver");
            return Err(Fault::invalid(reason));
        }
        let address = address(own.get("gelf-address").copied().unwrap_or_default())?;
        let is_tcp = matches!(address, Address::Tcp(_));
        let mut parsed = Self {
            address,
            patience: Patience { again: 3, pause: Duration::from_secs(1), grows: false },
            compression: if is_tcp { Kind::None } else { Kind::Gzip },
            level: Compression::fast(),
        };
        for (name, value) in own {
            let wrong = || {
                let reason =
                    format!("unknown value {value:?} for log opt {name:?} for gelf log driver");
                Fault::invalid(reason)
            };
            match *name {
                "gelf-compression-type" | "gelf-compression-level" if is_tcp => {
                    return Err(Fault::invalid("compression is only supported on UDP"));
                }
                "gelf-compression-type" => {
                    parsed.compression = match *value {
                        "gzip" => Kind::Gzip,
                        "zlib" => Kind::Zlib,
                        "none" => Kind::None,
                        _ => return Err(wrong()),
                    }
                }
                "gelf-compression-level" => {
                    parsed.level = match value.parse::<i32>() {
                        Ok(-1) => Compression::default(),
                        Ok(level @ 0..=9) => Compression::new(level.unsigned_abs()),
                        _ => return Err(wrong()),
                    }
                }
                "gelf-tcp-max-reconnect" | "gelf-tcp-reconnect-delay" if !is_tcp => {
                    return Err(Fault::invalid(format!("{name} is only supported on TCP")));
                }
                "gelf-tcp-max-reconnect" => {
                    parsed.patience.again = value.parse().map_err(|_no_number| wrong())?;
                }
                "gelf-tcp-reconnect-delay" => {
                    let pause = value.parse().map_err(|_no_number| wrong())?;
                    parsed.patience.pause = Duration::from_secs(pause).max(PAUSE_MIN);
                }
                _ => {}
            }
        }
        // One more try at once costs nothing, as a datagram that was refused was an earlier one.
        if !is_tcp {
            parsed.patience = Patience { again: 1, pause: Duration::ZERO, grows: false };
        }
        Ok(parsed)
    }

    pub(super) fn pieces(&self, source: &Source, entry: &LogEntry) -> Vec<Vec<u8>> {
        let text = text(entry);
        if text.is_empty() {
            return Vec::new();
        }
        let json = Value::Object(message(source, entry, &text)).to_string().into_bytes();
        if matches!(self.address, Address::Tcp(_)) {
            return vec![[json, vec![0]].concat()];
        }
        chunks(self.compressed(json), rand::random())
    }

    fn compressed(&self, json: Vec<u8>) -> Vec<u8> {
        // Written to memory, this does not fail.
        let written = match self.compression {
            Kind::None => return json,
            Kind::Gzip => {
                let mut encoder = GzEncoder::new(Vec::new(), self.level);
                encoder.write_all(&json).and_then(|()| encoder.finish())
            }
            Kind::Zlib => {
                let mut encoder = ZlibEncoder::new(Vec::new(), self.level);
                encoder.write_all(&json).and_then(|()| encoder.finish())
            }
        };
        written.unwrap_or(json)
    }
}

fn address(text: &str) -> Result<Address, Fault> {
    if text.is_empty() {
        return Err(Fault::invalid("gelf-address is a required parameter"));
    }
    let Some((scheme, _)) = text.split_once("://") else {
        let reason = format!("gelf-address should be in form proto://address, got {text}");
        return Err(Fault::invalid(reason));
    };
    if scheme != "udp" && scheme != "tcp" {
        return Err(Fault::invalid("gelf: endpoint needs to be TCP or UDP"));
    }
    Address::parse(text, None)
        .ok_or_else(|| Fault::invalid("gelf: please provide gelf-address as proto://host:port"))
}

fn message(source: &Source, entry: &LogEntry, text: &str) -> Map<String, Value> {
    let millis = entry.time.0.div_euclid(1_000_000);
    // Milliseconds of our time have their place in the bits of a double.
    #[expect(clippy::cast_precision_loss, reason = "there are enough bits for some thousand years")]
    let seconds = millis as f64 / 1000.0;
    let mut message = Map::new();
    let mut add = |name: &str, value: Value| drop(message.insert(name.to_owned(), value));
    add("version", "1.1".into());
    add("host", source.host.as_str().into());
    add("short_message", text.into());
    add("timestamp", seconds.into());
    add("level", (if entry.stderr { ERROR } else { INFO }).into());
    add("_command", source.command.as_str().into());
    add("_container_id", source.id.as_str().into());
    add("_container_name", source.name.as_str().into());
    add("_created", source.created.as_str().into());
    add("_image_id", source.image_id.as_str().into());
    add("_image_name", source.image.as_str().into());
    add("_tag", source.tag.as_str().into());
    for (name, value) in &source.attributes {
        let name = if name.starts_with('_') { name.clone() } else { format!("_{name}") };
        add(&name, value.as_str().into());
    }
    message
}

/// One datagram, or chunks with `id`. What is too long for all of them is cut: it cannot be, as a line
/// and its attributes are bounded.
fn chunks(message: Vec<u8>, id: u64) -> Vec<Vec<u8>> {
    if message.len() <= CHUNK {
        return vec![message];
    }
    let parts: Vec<&[u8]> = message.chunks(CHUNK - CHUNK_HEAD).take(CHUNKS_MAX).collect();
    let count = u8::try_from(parts.len()).unwrap_or_default();
    let one = |(number, part): (u8, &[u8])| {
        let head = [&[0x1e, 0x0f][..], &id.to_be_bytes(), &[number, count]].concat();
        [&head, part].concat()
    };
    (0..count).zip(parts).map(one).collect()
}
