//! Which lines of logs a user wants.

use super::human;
use crate::client::escape;
use anyhow::{Result, bail};
use clap::Args;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// What logs of containers and of services take.
#[derive(Args, Debug)]
pub(crate) struct Lines {
    /// Wait for more
    #[arg(short, long)]
    follow: bool,
    /// Show as many lines of the end, of each task where there are many
    #[arg(short = 'n', long, default_value = "all", value_name = "N")]
    tail: String,
    /// Show when each line was written
    #[arg(short, long)]
    pub(super) timestamps: bool,
    /// Show lines since a time: 2026-01-02T15:04:05Z, or 10m
    #[arg(long, default_value = "", hide_default_value = true)]
    since: String,
}

impl Lines {
    /// As the API is asked for them.
    pub(super) fn query(&self) -> Result<String> {
        let Self { follow, tail, timestamps, since: from } = self;
        let (tail, from) = (escape(tail), escape(&since(from)?));
        let streams = "stdout=true&stderr=true";
        Ok(format!("{streams}&follow={follow}&tail={tail}&timestamps={timestamps}&since={from}"))
    }
}

/// A time that a user wrote as the API wants it: seconds since 1970. `10m` is ten minutes ago.
pub(super) fn since(text: &str) -> Result<String> {
    if text.is_empty() || text.parse::<f64>().is_ok() {
        return Ok(text.to_owned());
    }
    if let Some(ago) = types::parse_duration(text) {
        let then = human::now() - ago;
        return Ok(format!("{}.{:09}", then.unix_timestamp(), then.nanosecond()));
    }
    let Ok(time) = OffsetDateTime::parse(text, &Rfc3339) else {
        bail!("invalid time {text:?}: use 2026-01-02T15:04:05Z, or 10m for ten minutes ago");
    };
    Ok(format!("{}.{:09}", time.unix_timestamp(), time.nanosecond()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_dates_seconds_or_ages() {
        assert_eq!(since("").unwrap(), "");
        assert_eq!(since("12.5").unwrap(), "12.5");
        assert_eq!(since("2026-01-01T00:00:00Z").unwrap(), "1767225600.000000000");
        assert!(since("10m").unwrap().contains('.'));
        assert!(since("yesterday").is_err());
    }
}
