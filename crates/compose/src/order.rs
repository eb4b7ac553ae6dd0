//! What services wait for: `depends_on`, and the order that follows from it.

use crate::fields::{Fields, entries};
use crate::remark::Log;
use crate::scalar::{boolean, strings, text};
use crate::tree::{Node, Value};
use std::collections::{BTreeMap, BTreeSet};
use types::ServiceSpec;

/// A service that another one waits for when it is deployed for the first time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dependency {
    /// Its name in the cluster.
    pub service: String,
    pub condition: Condition,
}

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// A task of it runs.
    Started,
    /// A task of it runs, and its health check says that it is well.
    Healthy,
    /// Its tasks have ended without an error.
    Completed,
}

impl Condition {
    fn parse(word: &str) -> Option<Self> {
        match word {
            "service_started" => Some(Self::Started),
            "service_healthy" => Some(Self::Healthy),
            "service_completed_successfully" => Some(Self::Completed),
            _ => None,
        }
    }
}

/// What one service names in `depends_on`, with where it does.
pub(crate) struct Named<'a> {
    /// Its name in the file.
    service: String,
    condition: Condition,
    required: bool,
    at: &'a Node,
}

/// Reads `depends_on`: a list of names, or a mapping that says what is waited for.
pub(crate) fn named<'a>(node: &'a Node, log: &mut Log) -> Vec<Named<'a>> {
    let plain = |service, at| Named { service, condition: Condition::Started, required: true, at };
    if !matches!(node.value, Value::Map(_)) {
        return strings(node, log).into_iter().map(|service| plain(service, node)).collect();
    }
    let mut all = Vec::new();
    for entry in entries(node, log) {
        let mut named = plain(entry.key.clone(), &entry.node);
        let mut fields = Fields::of(&entry.node, log);
        if let Some(node) = fields.take("condition") {
            let word = text(node, log);
            match Condition::parse(&word) {
                Some(condition) => named.condition = condition,
                None => log.error(
                    node,
                    format!(
                        "{word:?} is no condition: there are service_started, service_healthy and \
                         service_completed_successfully"
                    ),
                ),
            }
        }
        if let Some(node) = fields.take("required") {
            named.required = boolean(node, log);
        }
        fields.ignore(&[("restart", "a service finds the new tasks of another by its name")], log);
        fields.finish(log);
        all.push(named);
    }
    all
}

/// Sorts services so that each comes after those that it waits for, and otherwise as they were;
/// returns what each waits for by its name in the cluster. `names` are the services that are
/// deployed: from their names in the file to those in the cluster.
pub(crate) fn sorted(
    services: &mut Vec<ServiceSpec>,
    needs: &BTreeMap<String, Vec<Named<'_>>>,
    names: &BTreeMap<String, String>,
    log: &mut Log,
) -> BTreeMap<String, Vec<Dependency>> {
    let mut all: BTreeMap<String, Vec<Dependency>> = BTreeMap::new();
    for (service, needs) in needs {
        let Some(name) = names.get(service) else { continue };
        for other in needs {
            if let Some(found) = names.get(&other.service) {
                let dependency = Dependency { service: found.clone(), condition: other.condition };
                all.entry(name.clone()).or_default().push(dependency);
            } else if other.required {
                let text = format!("depends on {:?}, which is not deployed", other.service);
                log.error(other.at, text);
            }
        }
    }
    let mut done: BTreeSet<String> = BTreeSet::new();
    let mut left = std::mem::take(services);
    while !left.is_empty() {
        let is_free = |spec: &ServiceSpec| {
            all.get(&spec.name)
                .is_none_or(|others| others.iter().all(|other| done.contains(&other.service)))
        };
        let Some(at) = left.iter().position(is_free) else {
            // Every one that is left waits for one that is left.
            let first = needs.iter().find(|(service, _)| {
                left.iter().any(|spec| names.get(*service) == Some(&spec.name))
            });
            if let Some(need) = first.and_then(|(_, needs)| needs.first()) {
                log.error(need.at, "services wait for each other in a circle");
            }
            services.append(&mut left);
            break;
        };
        let spec = left.remove(at);
        done.insert(spec.name.clone());
        services.push(spec);
    }
    all
}
