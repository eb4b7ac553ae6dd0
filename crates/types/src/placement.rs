//! Where tasks may run: constraints and preferences.

use crate::{Affinity, Constraint, ConstraintError, Node, Platform};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Placement {
    /// As the user wrote them, checked by [`Placement::check`] when the service was made.
    pub constraints: Vec<String>,
    pub preferences: Vec<Preference>,
    /// 0: no limit.
    pub max_replicas_per_node: u64,
    /// The platforms that the image is made for. Empty: any; an empty word in one: any, too.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub platforms: Vec<Platform>,
}

impl Placement {
    /// What is wrong with a constraint, be it about nodes or about services.
    pub fn check(constraint: &str) -> Result<(), ConstraintError> {
        match Affinity::parse(constraint) {
            Some(affinity) => affinity.map(drop),
            None => Constraint::parse(constraint).map(drop),
        }
    }

    /// Those of the constraints that are about nodes; `None`: one cannot be read.
    pub fn of_nodes(&self) -> impl Iterator<Item = Option<Constraint>> {
        let is_affinity = |text: &&String| matches!(Affinity::parse(text), Some(Ok(_)));
        let texts = self.constraints.iter().filter(move |text| !is_affinity(text));
        texts.map(|text| Constraint::parse(text).ok())
    }

    /// Those of the constraints that are about other services.
    pub fn affinities(&self) -> impl Iterator<Item = Affinity> {
        self.constraints.iter().filter_map(|text| Affinity::parse(text)?.ok())
    }

    /// Says whether a node fulfils all constraints that are about nodes.
    pub fn is_fulfilled_by(&self, node: &Node) -> bool {
        self.of_nodes().all(|constraint| constraint.is_some_and(|it| it.matches(node)))
    }

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

#[cfg(test)]
mod tests {
    use super::*;

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
