//! One line of a log file, as Docker's json-file has it.

use super::LogEntry;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use types::{Labels, Timestamp};

#[derive(Serialize, Deserialize)]
struct Line {
    log: String,
    stream: String,
    /// As Docker's: what the driver's options ask for.
    #[serde(rename = "attrs", default, skip_serializing_if = "Labels::is_empty")]
    attributes: Labels,
    time: String,
}

/// Appends a line to `text`. Bytes that are no UTF-8 are replaced, as Docker does.
pub(super) fn render(entry: &LogEntry, attributes: &Labels, text: &mut Vec<u8>) {
    let line = Line {
        log: String::from_utf8_lossy(&entry.bytes).into_owned(),
        stream: if entry.stderr { "stderr" } else { "stdout" }.to_owned(),
        attributes: attributes.clone(),
        time: entry.time.rfc3339(),
    };
    if serde_json::to_writer(&mut *text, &line).is_ok() {
        text.push(b'\n');
    }
}

/// Reads a line; `None` where it is damaged.
pub(super) fn parse(text: &[u8]) -> Option<LogEntry> {
    let line: Line = serde_json::from_slice(text).ok()?;
    let time = OffsetDateTime::parse(&line.time, &Rfc3339).ok()?;
    Some(LogEntry {
        stderr: line.stream == "stderr",
        time: Timestamp(i64::try_from(time.unix_timestamp_nanos()).ok()?),
        bytes: Bytes::from(line.log),
    })
}

/// Makes entries of lines that have just come.
pub(crate) fn stamp(lines: Vec<Bytes>, stderr: bool, time: Timestamp) -> Vec<LogEntry> {
    lines.into_iter().map(|bytes| LogEntry { stderr, time, bytes }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn a_line_is_read_as_it_was_written() {
        let entry = LogEntry {
            stderr: true,
            time: Timestamp(1_700_000_000_123_456_789),
            bytes: Bytes::from_static(b"a \"quoted\" line\n"),
        };
        let mut text = Vec::new();
        render(&entry, &Labels::new(), &mut text);
        expect![[r#"
            {"log":"a \"quoted\" line\n","stream":"stderr","time":"2023-11-14T22:13:20.123456789Z"}
        "#]]
        .assert_eq(std::str::from_utf8(&text).unwrap());
        assert_eq!(parse(&text).as_ref(), Some(&entry));
        assert_eq!(parse(b"{\"log\":\"half"), None);
        text.clear();
        render(&entry, &[("tag".to_owned(), "web".to_owned())].into(), &mut text);
        assert!(std::str::from_utf8(&text).unwrap().contains(r#""attrs":{"tag":"web"},"time""#));
        assert_eq!(parse(&text).as_ref(), Some(&entry));
    }
}
