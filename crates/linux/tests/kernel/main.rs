//! The real kernel: several nodes in namespaces of their own, real packets. Needs root.

mod mesh;
mod names;
mod overlay;
mod repair;
mod support;
mod vip;
