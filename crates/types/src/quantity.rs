//! Amounts as Docker's users write them.

use std::time::Duration;

/// Reads a duration as Go does: numbers with units, and a lone `0`.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text.trim().strip_prefix('+').unwrap_or(text.trim());
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    if rest.is_empty() {
        return None;
    }
    let mut nanos = 0_f64;
    while !rest.is_empty() {
        let end = rest.find(|letter: char| !letter.is_ascii_digit() && letter != '.')?;
        let number: f64 = rest[..end].parse().ok()?;
        rest = &rest[end..];
        let end = rest
            .find(|letter: char| letter.is_ascii_digit() || letter == '.')
            .unwrap_or(rest.len());
        let unit = match &rest[..end] {
            "ns" => 1.0,
            "us" | "µs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            "d" => 86_400e9,
            _ => return None,
        };
        nanos += number * unit;
        rest = &rest[end..];
    }
    // Go's durations end after 292 years.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked")]
    let whole = (nanos < 9.2e18).then(|| Duration::from_nanos(nanos.round() as u64));
    whole
}

/// Reads bytes as Docker does: units are powers of 1024, in either case, with or without `b`/`ib`.
pub fn parse_size(text: &str) -> Option<i64> {
    let text = text.trim();
    let end =
        text.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(text.len());
    let number: f64 = text[..end].parse().ok()?;
    let unit = match text[end..].trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1_f64,
        "k" | "kb" | "kib" => 1024_f64,
        "m" | "mb" | "mib" => 1024_f64.powi(2),
        "g" | "gb" | "gib" => 1024_f64.powi(3),
        "t" | "tb" | "tib" => 1024_f64.powi(4),
        _ => return None,
    };
    let bytes = number * unit;
    #[expect(clippy::cast_possible_truncation, reason = "checked")]
    let whole = (bytes < 9.2e18).then_some(bytes as i64);
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_does() {
        for (text, millis) in
            [("1m30s", 90_000), ("500ms", 500), ("1.5s", 1500), ("0", 0), ("2h", 7_200_000)]
        {
            assert_eq!(parse_duration(text), Some(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "10", "s", "1x", "-1s", "1..2s", "99999999999h"] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }

    #[test]
    fn sizes_are_powers_of_1024() {
        for (text, bytes) in
            [("50M", 50 << 20), ("1gb", 1 << 30), ("512", 512), ("1.5k", 1536), ("2 GiB", 2 << 30)]
        {
            assert_eq!(parse_size(text), Some(bytes), "{text}");
        }
        for text in ["", "M", "5x", "-1", "99999999t"] {
            assert_eq!(parse_size(text), None, "{text}");
        }
    }
}
