//! Health checks: probes that run in the container, and what is concluded from them.
//!
//! The conclusions are pure and here; [`run`] carries the probes out.

mod run;
#[cfg(test)]
mod tests;

pub(crate) use run::watch_over;

use serde::{Deserialize, Serialize};
use std::time::Duration;
use types::{HealthCheck, Timestamp};

/// Probes that are remembered.
const LOG_MAX: usize = 5;
/// Of a probe's output.
pub(crate) const OUTPUT_MAX: usize = 4096;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HealthStatus {
    #[default]
    Starting,
    Healthy,
    Unhealthy,
}

impl HealthStatus {
    /// Docker's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
        }
    }
}

/// What probes found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Health {
    pub status: HealthStatus,
    /// Failures in a row.
    pub failing_streak: u32,
    /// The last five.
    pub log: Vec<Probe>,
}

/// One probe.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Probe {
    pub start: Timestamp,
    pub end: Timestamp,
    /// 0: healthy; -1: it took too long.
    pub exit_code: i32,
    /// At most 4 KiB.
    pub output: String,
}

/// A health check with nothing left open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Check {
    pub(crate) command: Vec<String>,
    pub(crate) interval: Duration,
    pub(crate) timeout: Duration,
    pub(crate) start_period: Duration,
    pub(crate) start_interval: Duration,
    pub(crate) retries: u32,
}

impl Check {
    /// The user's check over the image's, field by field, as Docker merges them; `None` where there
    /// is none.
    pub(crate) fn resolve(own: Option<&HealthCheck>, image: Option<&HealthCheck>) -> Option<Self> {
        let nothing = HealthCheck::default();
        let (own, image) = (own.unwrap_or(&nothing), image.unwrap_or(&nothing));
        let test = if own.test.is_empty() { &image.test } else { &own.test };
        let choose = |own: Duration, image: Duration, default: u64| {
            let set = [own, image].into_iter().find(|figure| !figure.is_zero());
            set.unwrap_or(Duration::from_secs(default))
        };
        let retries = [own.retries, image.retries, 3];
        Some(Self {
            command: command(test)?,
            interval: choose(own.interval, image.interval, 30),
            timeout: choose(own.timeout, image.timeout, 30),
            start_period: choose(own.start_period, image.start_period, 0),
            start_interval: choose(own.start_interval, image.start_interval, 5),
            retries: retries.into_iter().find(|count| 0 < *count).unwrap_or(3),
        })
    }

    /// How long to wait before the next probe.
    pub(crate) fn pause(&self, health: &Health, started: Timestamp, now: Timestamp) -> Duration {
        if self.is_starting(health, started, now) { self.start_interval } else { self.interval }
    }

    fn is_starting(&self, health: &Health, started: Timestamp, now: Timestamp) -> bool {
        health.status == HealthStatus::Starting && now.since(started) < self.start_period
    }

    /// What is known after a further probe.
    pub(crate) fn conclude(&self, health: &Health, probe: Probe, started: Timestamp) -> Health {
        let mut next = health.clone();
        if probe.exit_code == 0 {
            next.failing_streak = 0;
            next.status = HealthStatus::Healthy;
        } else if !self.is_starting(health, started, probe.start) {
            // Failures while it starts do not count.
            next.failing_streak += 1;
            if self.retries <= next.failing_streak {
                next.status = HealthStatus::Unhealthy;
            }
        }
        next.log.push(probe);
        let surplus = next.log.len().saturating_sub(LOG_MAX);
        next.log.drain(..surplus);
        next
    }
}

fn command(test: &[String]) -> Option<Vec<String>> {
    match test {
        [kind, command @ ..] if kind == "CMD" && !command.is_empty() => Some(command.to_vec()),
        [kind, command] if kind == "CMD-SHELL" => {
            Some(["/bin/sh", "-c", command].map(str::to_owned).to_vec())
        }
        _ => None,
    }
}
