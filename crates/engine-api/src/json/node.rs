//! Nodes: `NodeSpec` both ways, `Node` on the way out.

use super::cluster::tls_info;
use super::with_meta;
use serde::Deserialize;
use serde_json::{Value, json};
use types::{Availability, Fault, Labels, Node, NodeRole, NodeSpec};

#[derive(Debug, Default, Deserialize)]
#[serde(rename = "NodeSpec", rename_all = "PascalCase", default)]
pub(crate) struct NodeSpecJson {
    name: String,
    labels: Labels,
    role: String,
    availability: String,
}

impl NodeSpecJson {
    pub(crate) fn parse(self) -> Result<NodeSpec, Fault> {
        let role = match self.role.to_ascii_lowercase().as_str() {
            "worker" => NodeRole::Worker,
            "manager" => NodeRole::Manager,
            _ => return Err(Fault::invalid(format!("invalid Role: {:?}", self.role))),
        };
        // A node is not activated because nothing is said of it.
        let said = Some(self.availability.as_str()).filter(|word| !word.is_empty());
        let wrong = || Fault::invalid(format!("invalid Availability: {:?}", self.availability));
        let availability = said.and_then(|word| availability(word).ok()).ok_or_else(wrong)?;
        Ok(NodeSpec { name: self.name, labels: self.labels, role, availability })
    }
}

/// Reads an availability as `--availability` has it, in any case as Docker's servers do.
pub(crate) fn availability(word: &str) -> Result<Availability, Fault> {
    match word.to_ascii_lowercase().as_str() {
        "" | "active" => Ok(Availability::Active),
        "pause" => Ok(Availability::Pause),
        "drain" => Ok(Availability::Drain),
        _ => Err(Fault::invalid(format!(
            "invalid availability '{word}': use active, pause or drain"
        ))),
    }
}

/// What is known of a node as a manager.
pub(crate) struct ManagerView {
    pub(crate) address: String,
    pub(crate) leader: bool,
    pub(crate) reachable: bool,
}

/// Renders a node as `GET /nodes/{id}` shows it.
pub(crate) fn render(node: &Node, manager: Option<&ManagerView>) -> Value {
    let description = &node.description;
    let mut status = json!({ "State": node.status.state.as_str(), "Addr": node.status.address });
    let words = [&node.status.message, &node.allocation_error, &node.trouble];
    let words: Vec<&str> =
        words.into_iter().map(String::as_str).filter(|word| !word.is_empty()).collect();
    if !words.is_empty() {
        status["Message"] = words.join("; ").into();
    }
    let mut object = json!({
        "ID": node.id,
        "Spec": {
            "Name": node.spec.name,
            "Labels": node.spec.labels,
            "Role": node.spec.role.as_str(),
            "Availability": node.spec.availability.as_str(),
        },
        "Description": {
            "Hostname": description.hostname,
            "Platform": {
                "Architecture": description.platform.architecture,
                "OS": description.platform.os,
            },
            "Resources": {
                "NanoCPUs": description.nano_cpus,
                "MemoryBytes": description.memory_bytes,
            },
            "Engine": {
                "EngineVersion": description.engine.version,
                "Labels": description.engine.labels,
                "Plugins": description.engine.plugins.iter()
                    .map(|plugin| json!({ "Type": plugin.kind, "Name": plugin.name }))
                    .collect::<Vec<_>>(),
            },
            "TLSInfo": tls_info(&description.trust_root, &description.issuer),
        },
        "Status": status,
    });
    if !description.generic.is_empty() {
        object["Description"]["Resources"]["GenericResources"] =
            super::generic::render(&description.generic);
    }
    if let Some(manager) = manager {
        let reachability = if manager.reachable { "reachable" } else { "unreachable" };
        object["ManagerStatus"] = json!({ "Reachability": reachability, "Addr": manager.address });
        if manager.leader {
            object["ManagerStatus"]["Leader"] = true.into();
        }
    }
    with_meta(object, &node.meta)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Clients read a spec, change a word of it, and send it whole.
    #[test]
    fn what_was_wanted_last_is_shown_and_an_update_of_another_word_keeps_it() {
        let mut demoted = Node { role: NodeRole::Manager, ..Node::default() };
        demoted.spec = NodeSpec {
            name: "m3".into(),
            role: NodeRole::Worker,
            availability: Availability::Drain,
            labels: [("a".to_owned(), "b".to_owned())].into(),
        };
        let shown = render(&demoted, None)["Spec"].to_string();
        let read = crate::request::read::<NodeSpecJson>(shown.as_bytes()).unwrap().value;
        assert_eq!(read.parse().unwrap(), demoted.spec);
    }

    #[test]
    fn an_update_says_role_and_availability_or_is_refused() {
        let parse = |text: &str| {
            crate::request::read::<NodeSpecJson>(text.as_bytes()).unwrap().value.parse()
        };
        for text in [
            r#"{"Role":"worker","Availability":"drain"}"#,
            r#"{"Role":"Worker","Availability":"DRAIN"}"#,
        ] {
            let spec = parse(text).unwrap();
            assert_eq!((spec.role, spec.availability), (NodeRole::Worker, Availability::Drain));
        }
        for (text, reason) in [
            (r#"{"Role":"worker"}"#, "invalid Availability: \"\""),
            (r#"{"Role":"worker","Availability":"off"}"#, "invalid Availability: \"off\""),
            (r#"{"Availability":"active"}"#, "invalid Role: \"\""),
        ] {
            assert_eq!(parse(text).unwrap_err(), Fault::invalid(reason));
        }
    }
}
