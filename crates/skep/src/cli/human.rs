//! Times, sizes and ids for people, in docker's words.

use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Characters of a shortened id.
const SHORT: usize = 12;

/// The time now, for `3 minutes ago`.
pub(crate) fn now() -> OffsetDateTime {
    OffsetDateTime::now_utc()
}

/// A length of time in seconds.
pub(crate) fn duration(seconds: i64) -> String {
    let seconds = seconds.max(0);
    let minutes = seconds / 60;
    // Hours are rounded, as docker does.
    let hours = (seconds + 1800) / 3600;
    match seconds {
        0 => "Less than a second".to_owned(),
        1 => "1 second".to_owned(),
        2..60 => format!("{seconds} seconds"),
        60..120 => "About a minute".to_owned(),
        120..3600 => format!("{minutes} minutes"),
        _ if hours == 1 => "About an hour".to_owned(),
        _ if hours < 48 => format!("{hours} hours"),
        _ if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        _ if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        _ if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", hours / 24 / 365),
    }
}

/// How long ago a time of the API was, e.g. `3 minutes ago`.
pub(crate) fn ago(time: &Value, now: OffsetDateTime) -> String {
    let then = match time {
        Value::Number(seconds) => {
            seconds.as_i64().and_then(|time| OffsetDateTime::from_unix_timestamp(time).ok())
        }
        other => other.as_str().and_then(|text| OffsetDateTime::parse(text, &Rfc3339).ok()),
    };
    match then {
        Some(then) => format!("{} ago", duration((now - then).whole_seconds())),
        None => "N/A".to_owned(),
    }
}

/// An amount of bytes by powers of a thousand, with three digits: `133MB`.
pub(crate) fn size(bytes: i64) -> String {
    scaled(bytes, 1000, &["B", "kB", "MB", "GB", "TB", "PB"], 3)
}

/// An amount of bytes by powers of 1024, with four digits: `1.952GiB`.
pub(crate) fn memory(bytes: i64) -> String {
    scaled(bytes, 1024, &["B", "KiB", "MiB", "GiB", "TiB", "PiB"], 4)
}

fn scaled(bytes: i64, base: i64, units: &[&str], digits: usize) -> String {
    let (mut divisor, mut unit) = (1_i64, 0);
    while unit + 1 < units.len() && bytes / divisor >= base {
        divisor *= base;
        unit += 1;
    }
    #[expect(clippy::cast_precision_loss, reason = "few digits are shown")]
    let number = bytes as f64 / divisor as f64;
    let whole = (bytes / divisor).to_string().len();
    let mut text = format!("{number:.*}", digits.saturating_sub(whole));
    if text.contains('.') {
        text.truncate(text.trim_end_matches('0').trim_end_matches('.').len());
    }
    format!("{text}{}", units[unit])
}

/// An id's first characters, without its algorithm.
pub(crate) fn short(id: &str) -> String {
    let id = id.split_once(':').map_or(id, |(_, id)| id);
    id.chars().take(SHORT).collect()
}

/// An id as a list shows it.
pub(crate) fn id(id: &str, whole: bool) -> String {
    if whole { id.to_owned() } else { short(id) }
}

/// A word with a capital.
pub(crate) fn title(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

/// A text cut to `limit` characters, with an ellipsis where something is missing.
pub(crate) fn cut(text: &str, limit: usize) -> String {
    if text.chars().count() <= limit {
        return text.to_owned();
    }
    text.chars().take(limit - 1).chain(['…']).collect()
}

/// An image without its digest, where it has a tag as well.
pub(crate) fn image(image: &str) -> &str {
    match image.split_once('@') {
        Some((name, _)) if name.rsplit('/').next().is_some_and(|last| last.contains(':')) => name,
        _ => image,
    }
}

/// A key that sorts `web.2` before `web.10`.
pub(crate) fn natural(text: &str) -> Vec<(u64, String)> {
    let mut key = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(|letter: char| letter.is_ascii_digit()).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        let end = after.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(after.len());
        let (digits, after) = after.split_at(end);
        key.push((0, word.to_owned()));
        key.push((digits.parse().unwrap_or(u64::MAX), String::new()));
        rest = after;
    }
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_in_dockers_words() {
        for (seconds, text) in [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (61, "About a minute"),
            (185, "3 minutes"),
            (3600, "About an hour"),
            (2 * 3600, "2 hours"),
            (47 * 3600, "47 hours"),
            (49 * 3600, "2 days"),
            (15 * 86_400, "2 weeks"),
            (61 * 86_400, "2 months"),
            (800 * 86_400, "2 years"),
        ] {
            assert_eq!(duration(seconds), text, "{seconds}");
        }
    }

    #[test]
    fn sizes_have_three_or_four_digits() {
        for (bytes, text) in [
            (0, "0B"),
            (999, "999B"),
            (1_000, "1kB"),
            (133_400_000, "133MB"),
            (4_560_000, "4.56MB"),
        ] {
            assert_eq!(size(bytes), text);
        }
        assert_eq!(memory(2 << 30), "2GiB");
        assert_eq!(memory(4_123_456_789), "3.84GiB");
    }

    #[test]
    fn names_sort_by_their_numbers() {
        let mut names = vec!["web.10", "web.2", "db.1"];
        names.sort_by_key(|name| natural(name));
        assert_eq!(names, ["db.1", "web.2", "web.10"]);
    }

    #[test]
    fn digests_and_long_texts_are_cut() {
        assert_eq!(image("nginx:1.25@sha256:ab"), "nginx:1.25");
        assert_eq!(image("host:5000/nginx@sha256:ab"), "host:5000/nginx@sha256:ab");
        assert_eq!(cut("abcdef", 4), "abc…");
        assert_eq!(short("sha256:0123456789abcdef"), "0123456789ab");
    }
}
