//! The only place that reads the clock and draws randomness.

use types::Timestamp;

pub(crate) fn now() -> Timestamp {
    #[expect(clippy::disallowed_methods, reason = "the engine's only clock")]
    let now = std::time::SystemTime::now();
    let since = now.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
}

/// 64 hex digits that were never drawn before.
pub(crate) fn draw_id() -> String {
    let bytes: [u8; 32] = rand::random();
    bytes.iter().fold(String::with_capacity(64), |mut text, byte| {
        use std::fmt::Write as _;
        let _infallible = write!(text, "{byte:02x}");
        text
    })
}

/// Draws one of a list.
pub(crate) fn draw<'a>(words: &[&'a str]) -> &'a str {
    let number: u32 = rand::random();
    let index = usize::try_from(number).unwrap_or(0) % words.len().max(1);
    words.get(index).copied().unwrap_or_default()
}
