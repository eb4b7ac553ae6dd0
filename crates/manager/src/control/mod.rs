//! What users ask for: checked, then proposed.
//!
//! Every operation is one closure on the newest view, so that what it checked still holds when it
//! is written. Texts and kinds are Docker's: its users and their scripts know them.

pub(crate) mod cluster;
pub mod file;
mod job;
pub mod network;
pub mod node;
mod root;
pub mod service;
mod spec;

use types::{FailureAction, Fault, Meta, Protocol, PublishedPort, Service, ServiceSpec, Version};

/// A user changes an object as they read it, not as it has become since.
fn check_version(meta: &Meta, version: Version) -> Result<(), Fault> {
    if meta.version == version {
        return Ok(());
    }
    // Docker's users' scripts look for this text, and clients try again on it.
    Err(Fault::internal("rpc error: code = Unknown desc = update out of sequence"))
}

/// What a service's tasks are made from, and will be if its update is rolled back.
fn specs_in_use(service: &Service) -> impl Iterator<Item = &ServiceSpec> {
    let rolls_back = service.spec.update.failure_action == FailureAction::Rollback
        && service.update.as_ref().is_none_or(|update| update.runs() && !update.is_rollback());
    let previous = service.previous_spec.as_ref().filter(|_| rolls_back);
    std::iter::once(&service.spec).chain(previous)
}

/// Keeps the port on which nodes find the managers: published, it would lead to a service.
pub(crate) fn check_own_port(spec: &ServiceSpec, own: u16) -> Result<(), Fault> {
    let taken = |port: &&PublishedPort| port.protocol == Protocol::Tcp && port.published == own;
    match spec.endpoint.ports.iter().find(taken) {
        Some(_) => Err(Fault::invalid(format!(
            "port '{own}' is already in use by the cluster's managers: publish another one"
        ))),
        None => Ok(()),
    }
}
