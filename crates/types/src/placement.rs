//! Where tasks may run: constraints and preferences.

use crate::{Node, NodeRole, Platform};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::fmt;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Placement {
    /// As the user wrote them, checked by [`Constraint::parse`] when the service was made.
    pub constraints: Vec<String>,
    pub preferences: Vec<Preference>,
    /// 0: no limit.
    pub max_replicas_per_node: u64,
    /// The platforms that the image is made for. Empty: any; an empty word in one: any, too.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub platforms: Vec<Platform>,
}

impl Placement {
    /// Says whether the image is made for the platform of a node.
    pub fn suits(&self, node: &Node) -> bool {
        let has = &node.description.platform;
        self.platforms.is_empty() || self.platforms.iter().any(|wanted| wanted.suits(has))
    }
}

impl Platform {
    /// Says whether a node of the platform `has` runs what is made for this one.
    fn suits(&self, has: &Self) -> bool {
        let same = |wanted: &str, has: &str| wanted.is_empty() || wanted == has;
        same(&self.os, &has.os) && same(machine(&self.architecture), machine(&has.architecture))
    }
}

/// Go's word for a machine: kernels have others for the same.
fn machine(word: &str) -> &str {
    match word {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Spread tasks evenly over the values of a node's label.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Preference {
    /// E.g. `node.labels.zone`.
    pub spread: String,
}

/// A condition on a node, e.g. `node.labels.disk==ssd`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Constraint {
    key: Key,
    equal: bool,
    value: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Key {
    Id,
    Hostname,
    Ip,
    Role,
    Os,
    Arch,
    Label(String),
    EngineLabel(String),
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConstraintError {
    #[error("constraint expected one operator from ==, !=: {0}")]
    Operator(String),
    #[error("key '{0}' is invalid in a constraint")]
    Malformed(String),
    #[error(
        "invalid constraint key {0}: use node.id, node.hostname, node.ip, node.role, node.platform.os, node.platform.arch, node.labels.* or engine.labels.*"
    )]
    Key(String),
    #[error("value '{0}' is invalid in a constraint")]
    Value(String),
}

impl Constraint {
    /// Reads a constraint as users write it.
    pub fn parse(text: &str) -> Result<Self, ConstraintError> {
        let (key, equal, value) = if let Some((key, value)) = text.split_once("==") {
            (key, true, value)
        } else if let Some((key, value)) = text.split_once("!=") {
            (key, false, value)
        } else {
            return Err(ConstraintError::Operator(text.to_owned()));
        };
        let (key, value) = (key.trim(), value.trim());
        if !is_key(key) {
            return Err(ConstraintError::Malformed(key.to_owned()));
        }
        if value.is_empty() || !value.chars().all(is_in_value) {
            return Err(ConstraintError::Value(value.to_owned()));
        }
        Ok(Self { key: Key::parse(key)?, equal, value: value.to_owned() })
    }

    /// Says whether `node` fulfils this constraint. Values are compared without case.
    pub fn matches(&self, node: &Node) -> bool {
        let description = &node.description;
        let same = |text: &str| text.eq_ignore_ascii_case(&self.value);
        let holds = match &self.key {
            Key::Id => same(node.id.as_str()),
            Key::Hostname => same(&description.hostname),
            Key::Ip => self.contains(node.status.address),
            Key::Role => same(match node.role {
                NodeRole::Worker => "worker",
                NodeRole::Manager => "manager",
            }),
            Key::Os => same(&description.platform.os),
            Key::Arch => same(&description.platform.architecture),
            Key::Label(name) => node.spec.labels.get(name).is_some_and(|value| same(value)),
            Key::EngineLabel(name) => {
                description.engine.labels.get(name).is_some_and(|value| same(value))
            }
        };
        holds == self.equal
    }

    /// What is not so on `node`, in words; `None`: it fulfils this constraint.
    pub fn lack(&self, node: &Node) -> Option<String> {
        if self.matches(node) {
            return None;
        }
        let Self { key, equal, value } = self;
        Some(match (key.value(node), equal) {
            (None, _) => format!("{key}=={value} is missing"),
            (Some(has), true) => format!("{key} is {has}, not {value}"),
            (Some(has), false) => format!("{key} is {has}"),
        })
    }

    fn contains(&self, address: std::net::IpAddr) -> bool {
        if let Ok(net) = self.value.parse::<ipnet::IpNet>() {
            return net.contains(&address);
        }
        self.value.parse() == Ok(address)
    }
}

/// swarmkit's rule for keys: `[a-z_][a-z0-9\-_.]+`, whatever their case.
fn is_key(text: &str) -> bool {
    let inside = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    text.len() > 1
        && text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.chars().all(inside)
}

/// swarmkit's rule for values: room is left for operators that may come, such as `>` and `~`.
fn is_in_value(c: char) -> bool {
    c.is_ascii_alphanumeric() || c.is_ascii_whitespace() || ":-_.*()?+[]\\^$|/".contains(c)
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id => f.write_str("node.id"),
            Self::Hostname => f.write_str("node.hostname"),
            Self::Ip => f.write_str("node.ip"),
            Self::Role => f.write_str("node.role"),
            Self::Os => f.write_str("node.platform.os"),
            Self::Arch => f.write_str("node.platform.arch"),
            Self::Label(name) => write!(f, "node.labels.{name}"),
            Self::EngineLabel(name) => write!(f, "engine.labels.{name}"),
        }
    }
}

impl Key {
    /// What a node has there; `None`: it has no such label.
    fn value<'a>(&self, node: &'a Node) -> Option<Cow<'a, str>> {
        let description = &node.description;
        Some(match self {
            Self::Id => node.id.as_str().into(),
            Self::Hostname => description.hostname.as_str().into(),
            Self::Ip => node.status.address.to_string().into(),
            Self::Role => match node.role {
                NodeRole::Worker => "worker".into(),
                NodeRole::Manager => "manager".into(),
            },
            Self::Os => description.platform.os.as_str().into(),
            Self::Arch => description.platform.architecture.as_str().into(),
            Self::Label(name) => node.spec.labels.get(name)?.as_str().into(),
            Self::EngineLabel(name) => description.engine.labels.get(name)?.as_str().into(),
        })
    }

    fn parse(text: &str) -> Result<Self, ConstraintError> {
        let lower = text.to_ascii_lowercase();
        if lower.starts_with("node.labels.") && text.len() > 12 {
            return Ok(Self::Label(text[12..].to_owned()));
        }
        if lower.starts_with("engine.labels.") && text.len() > 14 {
            return Ok(Self::EngineLabel(text[14..].to_owned()));
        }
        match lower.as_str() {
            "node.id" => Ok(Self::Id),
            "node.hostname" => Ok(Self::Hostname),
            "node.ip" => Ok(Self::Ip),
            "node.role" => Ok(Self::Role),
            "node.platform.os" => Ok(Self::Os),
            "node.platform.arch" => Ok(Self::Arch),
            _ => Err(ConstraintError::Key(text.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node() -> Node {
        let mut node = Node::default();
        node.description.hostname = "node-1".into();
        node.spec.labels.insert("disk".into(), "SSD".into());
        node.spec.labels.insert("region".into(), "EU West".into());
        node.status.address = [192, 168, 100, 2].into();
        node.role = NodeRole::Manager;
        node.id = "abc1".into();
        node.description.platform.os = "linux".into();
        node
    }

    #[test]
    fn constraints_compare_without_case_and_know_networks() {
        for (text, holds) in [
            ("node.hostname == NODE-1", true),
            ("node.hostname!=node-1", false),
            ("node.role==manager", true),
            ("node.labels.disk==ssd", true),
            ("node.labels.zone==a", false),
            ("node.labels.zone!=a", true),
            ("node.ip==192.168.100.0/24", true),
            ("node.ip==192.168.100.3", false),
            ("node.labels.region == eu west", true),
            ("node.labels.region!=EU West", false),
            ("Node.Hostname==Node-1", true),
            ("Node.Role == Manager", true),
            ("node.platform.os == linux", true),
            ("node.ip == 192.168.100.2", true),
            ("node.id == abc1", true),
            ("node.id == abc", false),
        ] {
            assert_eq!(Constraint::parse(text).unwrap().matches(&node()), holds, "{text}");
        }
    }

    #[test]
    fn what_a_node_has_instead_is_said() {
        for (text, lack) in [
            ("node.hostname==node-2", "node.hostname is node-1, not node-2"),
            ("node.labels.disk!=ssd", "node.labels.disk is SSD"),
            ("node.labels.disk==nvme", "node.labels.disk is SSD, not nvme"),
            ("node.labels.zone==a", "node.labels.zone==a is missing"),
            ("engine.labels.gpu==yes", "engine.labels.gpu==yes is missing"),
            ("node.ip==10.0.0.0/8", "node.ip is 192.168.100.2, not 10.0.0.0/8"),
            ("node.role==worker", "node.role is manager, not worker"),
            ("node.platform.os==windows", "node.platform.os is linux, not windows"),
        ] {
            assert_eq!(Constraint::parse(text).unwrap().lack(&node()).as_deref(), Some(lack));
        }
        assert_eq!(Constraint::parse("node.role==manager").unwrap().lack(&node()), None);
    }

    #[test]
    fn a_wrong_constraint_says_what_is_wrong() {
        assert!(matches!(
            Constraint::parse("node.role=manager"),
            Err(ConstraintError::Operator(_))
        ));
        assert!(matches!(Constraint::parse("rack==1"), Err(ConstraintError::Key(_))));
        let operator = Constraint::parse("node.role > worker");
        assert!(matches!(operator, Err(ConstraintError::Operator(_))));
        let said = |text: &str| Constraint::parse(text).unwrap_err().to_string();
        assert!(said("node role==worker").starts_with("key 'node role' is invalid"));
        assert!(said("==x").starts_with("key '' is invalid"));
        assert!(said("node.role==").starts_with("value '' is invalid"));
        assert!(said("node.labels.x==a,b").starts_with("value 'a,b' is invalid"));
        assert!(said("node.labels.x==grün").starts_with("value 'grün' is invalid"));
    }

    #[test]
    fn values_may_have_what_swarmkit_allows() {
        for value in ["a b", "a:b", "a/b", "v1.2-3_4", "(a|b)*?+", "[x]^$\\"] {
            let text = format!("node.labels.x == {value}");
            let constraint = Constraint::parse(&text).unwrap();
            let mut node = Node::default();
            node.spec.labels.insert("x".into(), value.to_uppercase());
            assert!(constraint.matches(&node), "{text}");
        }
    }

    #[test]
    fn an_image_is_for_certain_platforms() {
        let platform = |os: &str, architecture: &str| Platform {
            os: os.into(),
            architecture: architecture.into(),
        };
        let mut node = Node::default();
        node.description.platform = platform("linux", "x86_64");
        let suits = |platforms: &[Platform]| {
            Placement { platforms: platforms.to_vec(), ..Placement::default() }.suits(&node)
        };
        assert!(suits(&[]));
        assert!(suits(&[platform("linux", "amd64")]));
        assert!(suits(&[platform("linux", "arm64"), platform("", "x86_64")]));
        assert!(suits(&[platform("linux", "")]));
        assert!(!suits(&[platform("linux", "arm64"), platform("windows", "amd64")]));
    }
}
