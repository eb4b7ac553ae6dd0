//! The real kernel: several nodes in namespaces of their own, real packets. Needs root.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod beside;
mod gates;
mod hostile;
mod mesh;
mod names;
mod overlay;
mod repair;
mod support;
mod vip;
