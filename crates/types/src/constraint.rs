//! Conditions on nodes.
//!
//! Docker's are a key, `==` or `!=`, and a value. Two forms are Skep's own, and cannot be Docker's,
//! as neither braces nor `=` are allowed in a value there: `node.labels.zone=={a,b}` (one of these;
//! with `!=` none of them), and `node.labels.disk==ssd || node.role==manager` (one is enough).

use crate::Node;
use std::borrow::Cow;
use std::fmt;

/// A constraint of a service, e.g. `node.labels.disk==ssd`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Constraint {
    /// One that holds is enough.
    any: Vec<Condition>,
}

/// A condition on a node.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Condition {
    key: Key,
    equal: bool,
    values: Values,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Values {
    One(String),
    /// As in `{a,b}`.
    Set(Vec<String>),
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
        "invalid constraint key {0}: use node.id, node.hostname, node.ip, node.role, node.platform.os, node.platform.arch, node.labels.*, engine.labels.* or service"
    )]
    Key(String),
    #[error("value '{0}' is invalid in a constraint")]
    Value(String),
    #[error(
        "'{0}' names no service: write service==web, service!=db, service==~web or service!={{db,cache}}"
    )]
    Service(String),
}

impl Constraint {
    /// Reads a constraint as users write it.
    pub fn parse(text: &str) -> Result<Self, ConstraintError> {
        let error = match Condition::parse(text) {
            Ok(condition) => return Ok(Self { any: vec![condition] }),
            Err(error) => error,
        };
        let mut any = Vec::new();
        for part in text.split("||") {
            match Condition::parse(part) {
                Ok(condition) => any.push(condition),
                // A part that is wrong is named where it is one.
                Err(part) => return Err(if any.is_empty() { error } else { part }),
            }
        }
        Ok(Self { any })
    }

    /// Says whether Docker, and a release of Skep before this one, does not know it.
    pub fn is_beyond_docker(&self) -> bool {
        let is_set = |condition: &Condition| match condition.values {
            Values::One(_) => false,
            Values::Set(_) => true,
        };
        self.any.len() > 1 || self.any.iter().any(is_set)
    }

    /// Says whether `node` fulfils this constraint. Values are compared without case.
    pub fn matches(&self, node: &Node) -> bool {
        self.any.iter().any(|condition| condition.matches(node))
    }

    /// What is not so on `node`, in words; `None`: it fulfils this constraint.
    pub fn lack(&self, node: &Node) -> Option<String> {
        let lacks = || self.any.iter().map(|condition| condition.lack(node));
        (!self.matches(node)).then(|| lacks().collect::<Vec<_>>().join(" and "))
    }
}

impl Condition {
    fn parse(text: &str) -> Result<Self, ConstraintError> {
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
        let values = Values::parse(value);
        let values = values.ok_or_else(|| ConstraintError::Value(value.to_owned()))?;
        Ok(Self { key: Key::parse(key)?, equal, values })
    }

    fn matches(&self, node: &Node) -> bool {
        let holds = match &self.key {
            Key::Ip => self.values.iter().any(|value| contains(value, node.status.address)),
            key => key
                .value(node)
                .is_some_and(|has| self.values.iter().any(|value| has.eq_ignore_ascii_case(value))),
        };
        holds == self.equal
    }

    fn lack(&self, node: &Node) -> String {
        let Self { key, equal, values } = self;
        match (key.value(node), equal) {
            (None, _) => format!("{key}=={values} is missing"),
            (Some(has), true) => format!("{key} is {has}, not {values}"),
            (Some(has), false) => format!("{key} is {has}"),
        }
    }
}

/// Says whether a value, an address or a network, has an address in it.
fn contains(value: &str, address: std::net::IpAddr) -> bool {
    if let Ok(net) = value.parse::<ipnet::IpNet>() {
        return net.contains(&address);
    }
    value.parse() == Ok(address)
}

/// swarmkit's rule for keys: `[a-z_][a-z0-9\-_.]+`, whatever their case.
fn is_key(text: &str) -> bool {
    let inside = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    text.len() > 1
        && text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.chars().all(inside)
}

/// swarmkit's rule for values: room is left for operators that may come, such as `>` and `~`.
fn is_value(text: &str) -> bool {
    let inside = |c: char| {
        c.is_ascii_alphanumeric() || c.is_ascii_whitespace() || ":-_.*()?+[]\\^$|/".contains(c)
    };
    !text.is_empty() && text.chars().all(inside)
}

impl Values {
    fn parse(text: &str) -> Option<Self> {
        let Some(inside) = text.strip_prefix('{').and_then(|text| text.strip_suffix('}')) else {
            return is_value(text).then(|| Self::One(text.to_owned()));
        };
        let values = inside.split(',').map(str::trim);
        let values = values.map(|value| is_value(value).then(|| value.to_owned()));
        values.collect::<Option<_>>().map(Self::Set)
    }

    fn iter(&self) -> impl Iterator<Item = &String> {
        match self {
            Self::One(value) => std::slice::from_ref(value).iter(),
            Self::Set(values) => values.iter(),
        }
    }
}

impl fmt::Display for Values {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(value) => f.write_str(value),
            Self::Set(values) => write!(f, "{{{}}}", values.join(",")),
        }
    }
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
            Self::Role => node.role.as_str().into(),
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
        node.role = crate::NodeRole::Manager;
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
            ("node.labels.disk=={hdd, ssd}", true),
            ("node.labels.disk=={hdd,nvme}", false),
            ("node.labels.disk!={hdd,ssd}", false),
            ("node.labels.zone!={a,b}", true),
            ("node.labels.zone=={a,b}", false),
            ("node.ip=={10.0.0.0/8,192.168.100.2}", true),
            ("node.labels.zone==a || node.labels.disk==ssd", true),
            ("node.labels.zone!=a||node.role==worker", true),
            ("node.role==worker || node.labels.zone=={a,b}", false),
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
            ("node.labels.disk=={hdd,nvme}", "node.labels.disk is SSD, not {hdd,nvme}"),
            (
                "node.labels.zone==a || node.role==worker",
                "node.labels.zone==a is missing and node.role is manager, not worker",
            ),
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
        for set in ["{}", "{a,}", "{a", "a}", "{{a}}", "{a=b}"] {
            let text = format!("node.labels.x=={set}");
            assert!(said(&text).starts_with(&format!("value '{set}' is invalid")), "{text}");
        }
        assert!(said("node.role==worker || rack==1").starts_with("invalid constraint key rack"));
        assert!(said("rack || node.role==worker").starts_with("key 'rack || node.role' is"));
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
    fn what_is_beyond_docker_is_known() {
        let is = |text: &str| Constraint::parse(text).unwrap().is_beyond_docker();
        assert!(!is("node.labels.x==a") && !is("node.labels.x == a||b"));
        assert!(is("node.labels.x=={a}") && is("node.role==worker||node.id==x"));
    }
}
