//! A manager as nodes see it: real log, real TLS, scripted nodes.

#![expect(clippy::unwrap_used, reason = "a test fails where it cannot go on")]

mod events;
mod intruder;
mod liveness;
mod logs;
mod managers;
mod membership;
mod quota;
mod rotation;
mod stage;
mod tasks;
