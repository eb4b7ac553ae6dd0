//! Which format has what is in an object.
//!
//! A release reads an object without the fields that it does not know, and writes it without them. So
//! a field that must not be lost belongs to a format of its own, as a kind of objects does.

use crate::{Format, Object};
use types::{Cluster, ClusterSpec, Constraint, ServiceSpec, TaskSpec};

impl Object {
    /// The first format that has its kind and all the fields that are set in it.
    pub(crate) fn since(&self) -> Format {
        let is_newer = match self {
            Self::Cluster(cluster) => is_newer(cluster),
            Self::Service(service) if !service.homes.is_empty() => true,
            Self::Service(service) => service.specs().any(|spec| {
                is_newer_task(&spec.task) || spec.mode.is_job() || is_beyond_docker(spec)
            }),
            Self::Task(task) => {
                is_newer_task(&task.spec) || task.replaces.is_some() || task.refresh.is_some()
            }
            // What a node says of itself it says again to every manager that leads.
            Self::Node(_) | Self::Network(_) | Self::Secret(_) | Self::Config(_) => false,
        };
        let fields = if is_newer { Format::FILES } else { Format::default() };
        fields.max(self.kind_since())
    }
}

fn is_newer(cluster: &Cluster) -> bool {
    let usual = ClusterSpec::default();
    let spec = &cluster.spec;
    cluster.generation != 0
        || !cluster.removed.is_empty()
        || spec.kept_snapshots != usual.kept_snapshots
        || spec.kept_entries != usual.kept_entries
        || !spec.external_cas.is_empty()
}

/// A release that does not know such constraints takes them for what no node fulfils.
fn is_beyond_docker(spec: &ServiceSpec) -> bool {
    let placement = &spec.task.placement;
    let mut constraints = placement.constraints.iter();
    placement.affinities().next().is_some()
        || spec.is_sticky()
        || constraints.any(|text| Constraint::parse(text).is_ok_and(|it| it.is_beyond_docker()))
}

/// A release that does not know what a task asks of its node would start it without, or takes its mount
/// for another one; what it was given of generic resources would be another one's again.
fn is_newer_task(spec: &TaskSpec) -> bool {
    let container = &spec.container;
    container.has_files()
        || container.has_mounts_beyond_names()
        || spec.asks_of_node()
        || !spec.generic.is_empty()
}
