//! The journald driver: systemd's native protocol, one entry a datagram.

use super::{Part, text};
use crate::logs::LogEntry;
use crate::logs::source::Source;

const ERROR: &str = "3";
const INFO: &str = "6";
/// Names of fields are no longer.
const NAME_MAX: usize = 64;

/// An entry. Lines and attributes are bounded, so that it always fits into a datagram.
pub(super) fn datagram(
    source: &Source,
    (entry, part): (&LogEntry, Option<&Part>),
    number: u64,
) -> Vec<u8> {
    let short: String = source.id.chars().take(12).collect();
    let mut out = Vec::new();
    let mut add = |name: &str, value: &str| field(&mut out, name, value);
    add("PRIORITY", if entry.stderr { ERROR } else { INFO });
    add("MESSAGE", &text(entry));
    for (name, value) in &source.attributes {
        let name = field_name(name);
        if !name.is_empty() {
            add(&name, value);
        }
    }
    add("CONTAINER_ID", &short);
    add("CONTAINER_ID_FULL", &source.id);
    add("CONTAINER_NAME", &source.name);
    add("CONTAINER_TAG", &source.tag);
    add("IMAGE_NAME", &source.image);
    add("SYSLOG_IDENTIFIER", &source.tag);
    add("SYSLOG_TIMESTAMP", &entry.time.rfc3339());
    add("CONTAINER_LOG_ORDINAL", &number.to_string());
    if let Some(part) = part {
        add("CONTAINER_PARTIAL_ID", &part.id);
        add("CONTAINER_PARTIAL_ORDINAL", &part.ordinal.to_string());
        add("CONTAINER_PARTIAL_LAST", &part.last.to_string());
        if !part.last {
            add("CONTAINER_PARTIAL_MESSAGE", "true");
        }
    }
    out
}

fn field(out: &mut Vec<u8>, name: &str, value: &str) {
    out.extend(name.as_bytes());
    if value.contains('\n') {
        out.push(b'\n');
        out.extend(u64::try_from(value.len()).unwrap_or_default().to_le_bytes());
    } else {
        out.push(b'=');
    }
    out.extend(value.as_bytes());
    out.push(b'\n');
}

/// Capitals, digits and underscores; the first is no underscore (nor, as the journal has it, a digit).
fn field_name(name: &str) -> String {
    let sign =
        |sign: char| if sign.is_ascii_alphanumeric() { sign.to_ascii_uppercase() } else { '_' };
    let name: String = name.chars().map(sign).collect();
    let name = name.trim_start_matches(|sign: char| sign == '_' || sign.is_ascii_digit());
    name.chars().take(NAME_MAX).collect()
}
