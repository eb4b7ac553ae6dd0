//! The whole file: its top-level keys and what they become.

use crate::fields::{Fields, entries};
use crate::file::{self, StackFile};
use crate::network::{self, Networks};
use crate::order::{self, Dependency};
use crate::remark::Log;
use crate::scalar::{boolean, scalar, text};
use crate::service::{self, Stage};
use crate::tree::{Node, Value};
use crate::volume::{self, Volumes};
use crate::{Around, LABEL_NAMESPACE};
use std::collections::BTreeMap;
use types::{Config, Labels, NetworkSpec, Secret, ServiceSpec};

/// What a stack file asks the cluster for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Project {
    /// The networks that services use, in the order of their names.
    pub networks: Vec<StackNetwork>,
    /// In the order of their names in the file.
    pub secrets: Vec<StackFile>,
    pub configs: Vec<StackFile>,
    /// Each after those that it waits for, and otherwise in the order of the file. Targets of networks
    /// are names; secrets and configs have names alone.
    pub services: Vec<ServiceSpec>,
    /// What services wait for, by their names in the cluster.
    pub dependencies: BTreeMap<String, Vec<Dependency>>,
}

/// A network that services of the stack use.
#[derive(Clone, Debug, PartialEq)]
pub struct StackNetwork {
    pub spec: NetworkSpec,
    /// It is there already, and not the stack's to create or remove.
    pub external: bool,
}

/// What named things of a stack have in common.
#[derive(Clone, Debug)]
pub(crate) struct StackPart {
    /// The name in the cluster.
    pub(crate) name: String,
    pub(crate) external: bool,
    pub(crate) labels: Labels,
    /// The driver of a volume as the file names it; empty: the default one.
    pub(crate) driver: String,
    /// What the driver is told.
    pub(crate) driver_options: Labels,
}

impl StackPart {
    /// A part of the stack's own that the file does not say more about.
    pub(crate) fn own(key: &str, around: &Around<'_>) -> Self {
        Self {
            name: scoped(around, key),
            external: false,
            labels: Labels::new(),
            driver: String::new(),
            driver_options: Labels::new(),
        }
    }

    /// Reads `name` and `external`.
    pub(crate) fn read(
        key: &str,
        fields: &mut Fields<'_>,
        around: &Around<'_>,
        log: &mut Log,
    ) -> Self {
        let mut part = Self::own(key, around);
        let name = fields.take("name").map(|node| text(node, log));
        if let Some(external) = fields.take("external") {
            if let Value::Map(_) = &external.value {
                let mut fields = Fields::of(external, log);
                part.external = true;
                part.name = match fields.take("name") {
                    Some(name) => text(name, log),
                    None => key.to_owned(),
                };
                fields.finish(log);
            } else if boolean(external, log) {
                part.external = true;
                key.clone_into(&mut part.name);
            }
        }
        part.name = name.unwrap_or(part.name);
        part
    }
}

/// The name of a stack's part in the cluster.
pub(crate) fn scoped(around: &Around<'_>, name: &str) -> String {
    format!("{}_{name}", around.stack)
}

/// Labels of what belongs to the stack.
pub(crate) fn stack_labels(mut labels: Labels, around: &Around<'_>) -> Labels {
    labels.insert(LABEL_NAMESPACE.into(), around.stack.into());
    labels
}

/// Each file says for itself which version of the format it is; all of 3 are read, and files that
/// name none.
pub(crate) fn check_version(root: &Node, log: &mut Log) {
    let Some(version) = root.child("version") else { return };
    let text = scalar(version).unwrap_or_default();
    if text != "3" && !text.starts_with("3.") {
        log.error(version, format!("unsupported Compose file version {text:?}: use 3.x, or none"));
    }
}

/// Reads the whole of a file.
pub(crate) fn read(root: &Node, around: &Around<'_>, log: &mut Log) -> Project {
    let mut fields = Fields::of(root, log);
    fields.take("version");
    fields.ignore(&[("name", "the stack's name is given on the command line")], log);
    let volumes = match fields.take("volumes") {
        Some(node) => volume::volumes(node, around, log),
        None => Volumes::new(),
    };
    let networks = match fields.take("networks") {
        Some(node) => network::networks(node, around, log),
        None => Networks::new(),
    };
    let secrets = fields.take("secrets");
    let secrets = secrets.map(|node| file::files::<Secret>(node, around, log)).unwrap_or_default();
    let configs = fields.take("configs");
    let configs = configs.map(|node| file::files::<Config>(node, around, log)).unwrap_or_default();
    let mut stage = Stage { around, networks, volumes, secrets, configs, used: Networks::new() };
    let mut services = Vec::new();
    let (mut names, mut needs) = (BTreeMap::new(), BTreeMap::new());
    if let Some(node) = fields.take("services") {
        for entry in entries(node, log) {
            let Some(service) = service::service(entry, &mut stage, log) else { continue };
            names.insert(entry.key.clone(), service.spec.name.clone());
            needs.insert(entry.key.clone(), service.needs);
            services.push(service.spec);
        }
    }
    let dependencies = order::sorted(&mut services, &needs, &names, log);
    fields.finish(log);
    let Stage { secrets, configs, used, .. } = stage;
    Project {
        networks: used.into_values().collect(),
        secrets: secrets.into_values().collect(),
        configs: configs.into_values().collect(),
        services,
        dependencies,
    }
}
