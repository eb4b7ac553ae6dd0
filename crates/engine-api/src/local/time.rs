//! Times: now, and those that filters name.

use crate::request::table::filters::Filters;
use types::{Fault, Timestamp, parse_duration};

/// The time, for "3 minutes ago".
#[expect(clippy::disallowed_methods, reason = "the edge reads the clock")]
pub(crate) fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let nanos = since.map_or(0, |since| since.as_nanos());
    Timestamp(i64::try_from(nanos).unwrap_or(i64::MAX))
}

/// Reads the filter `until`: a time, or how long ago.
pub(super) fn until(filters: &Filters) -> Result<Option<Timestamp>, Fault> {
    let Some(wanted) = filters.get("until") else { return Ok(None) };
    let mut values = wanted.values();
    let Some(text) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Fault::invalid("more than one until filter specified"));
    }
    moment(text, now()).map(Some)
}

/// Reads a moment as Docker's filters name it: seconds since 1970 with an optional fraction, a date
/// with or without a time, or a duration before `now` in Go's form (`1h30m`).
fn moment(text: &str, now: Timestamp) -> Result<Timestamp, Fault> {
    let wrong =
        || Fault::invalid(format!("invalid time '{text}': use e.g. 24h or 2006-01-02T15:04:05Z"));
    // A lone 0 is the year 1970.
    if let Some(ago) = parse_duration(text).filter(|_| text != "0") {
        return Ok(now.before(ago));
    }
    if let Some(time) = date(text) {
        return Ok(time);
    }
    crate::cluster::unix_time(Some(text)).map_err(|_number| wrong())?.ok_or_else(wrong)
}

/// Reads a date, in UTC where it names no zone.
fn date(text: &str) -> Option<Timestamp> {
    let (day, hour) = text.split_once('T').unwrap_or((text, ""));
    let zoned = hour.ends_with('Z') || hour.contains(['+', '-']);
    let whole = match hour.matches(':').count() {
        _ if zoned => text.to_owned(),
        _ if hour.is_empty() => format!("{day}T00:00:00Z"),
        0 => format!("{text}:00:00Z"),
        1 => format!("{text}:00Z"),
        _ => format!("{text}Z"),
    };
    let format = time::format_description::well_known::Rfc3339;
    let time = time::OffsetDateTime::parse(&whole, &format).ok()?;
    i64::try_from(time.unix_timestamp_nanos()).ok().map(Timestamp)
}

/// What the filters `before` and `since` ask for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Bounds {
    before: Option<Timestamp>,
    since: Option<Timestamp>,
}

impl Bounds {
    pub(super) fn before(&mut self, time: Timestamp) {
        self.before = Some(self.before.map_or(time, |before| before.min(time)));
    }

    pub(super) fn since(&mut self, time: Timestamp) {
        self.since = Some(self.since.map_or(time, |since| since.max(time)));
    }

    pub(super) fn holds(self, time: Timestamp) -> bool {
        self.before.is_none_or(|before| time < before)
            && self.since.is_none_or(|since| time > since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_a_time_or_a_duration_ago() {
        let now = Timestamp(1_000_000_000_000_000_000);
        let second = 1_000_000_000;
        for (text, nanos) in [
            ("24h", now.0 - 86_400 * second),
            ("1h30m", now.0 - 5_400 * second),
            ("1.5s", now.0 - 1_500_000_000),
            ("12", 12 * second),
            ("12.5", 12_500_000_000),
            ("1970-01-02", 86_400 * second),
            ("1970-01-01T01:00", 3_600 * second),
            ("1970-01-01T02:00:00+01:00", 3_600 * second),
        ] {
            assert_eq!(moment(text, now), Ok(Timestamp(nanos)), "{text}");
        }
        for text in ["", "yesterday", "24", "3x", "1970-13-01", "h"] {
            assert_eq!(moment(text, now).is_ok(), text == "24", "{text}");
        }
    }
}
