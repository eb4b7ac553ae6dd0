//! The dispatcher as those see it who drive it: commands in, outputs out, no clock and no channel.

#![expect(clippy::unwrap_used, reason = "a test fails where it cannot go on")]

mod absence;
mod histories;
mod liveness;
mod logs;
mod sessions;
mod stage;
