//! Why no node can run a task: in Docker's words, and then node by node.

use super::beside::Term;
use super::filter::{
    Misfit, Requirements, first_broken, first_unfulfilled, lacking_kind, missing_plugin, taken_port,
};
use crate::index::Carried;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use types::{Availability, Node, NodeState};

/// So many nodes are named.
const NAMED: usize = 10;
/// So many characters are told of what users wrote and nodes say.
const TEXT_MAX: usize = 100;

/// A node that cannot run a task.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lack<'a> {
    pub(super) node: &'a Node,
    pub(super) carried: Carried<'a>,
    pub(super) misfit: Misfit,
}

/// Why tasks that ask for the same have no node.
#[derive(Debug)]
pub(super) struct Explanation {
    /// As Docker says it: how many nodes lack what.
    pub(super) short: String,
    /// The same, and what each node lacks.
    pub(super) whole: String,
}

/// The reason for the most nodes first; of the nodes those that lack least.
pub(super) fn explain(asked: &Requirements, lacks: Vec<Lack<'_>>) -> Explanation {
    let mut counts: BTreeMap<Reason, usize> = BTreeMap::new();
    for lack in &lacks {
        *counts.entry(Reason::of(lack.misfit)).or_default() += 1;
    }
    let mut counts: Vec<(Reason, usize)> = counts.into_iter().collect();
    counts.sort_by_key(|(reason, count)| (Reverse(*count), *reason));
    let reasons: Vec<String> =
        counts.into_iter().map(|(reason, count)| reason.words(count)).collect();
    if reasons.is_empty() {
        let short = "no suitable node".to_owned();
        return Explanation { whole: short.clone(), short };
    }
    let short = format!("no suitable node ({})", reasons.join("; "));
    let more = lacks.len().saturating_sub(NAMED);
    let ranked = lacks
        .into_iter()
        .map(|lack| ((Reverse(lack.misfit), shortage(asked, &lack), lack.node.known_as()), lack));
    let mut ranked: Vec<_> = ranked.collect();
    if more > 0 {
        ranked.select_nth_unstable_by(NAMED, |one, other| one.0.cmp(&other.0));
        ranked.truncate(NAMED);
    }
    ranked.sort_by(|one, other| one.0.cmp(&other.0));
    let mut details: Vec<String> = ranked
        .iter()
        .map(|(_, lack)| format!("{}: {}", lack.node.known_as(), cut(&detail(asked, lack))))
        .collect();
    if more > 0 {
        details.push(format!("and {more} more"));
    }
    let whole = format!("{short}. {}", details.join("; "));
    Explanation { short, whole }
}

/// What Docker tells apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Reason {
    Unavailable,
    Constraints,
    Platform,
    Files,
    Access,
    Beside,
    Mounts,
    Plugin,
    Resources,
    Mesh,
    HostPort,
    MaxReplicas,
}

impl Reason {
    fn of(misfit: Misfit) -> Self {
        match misfit {
            Misfit::Unavailable => Self::Unavailable,
            Misfit::Constraints => Self::Constraints,
            Misfit::Platform => Self::Platform,
            Misfit::Files => Self::Files,
            Misfit::Access => Self::Access,
            Misfit::Beside => Self::Beside,
            Misfit::Mounts => Self::Mounts,
            Misfit::Plugin => Self::Plugin,
            Misfit::Cpus | Misfit::Memory | Misfit::Generic => Self::Resources,
            Misfit::Mesh => Self::Mesh,
            Misfit::HostPort => Self::HostPort,
            Misfit::MaxReplicas => Self::MaxReplicas,
        }
    }

    fn words(self, count: usize) -> String {
        let nodes = if count == 1 { "node" } else { "nodes" };
        match self {
            Self::Unavailable => format!("{count} {nodes} not available for new tasks"),
            Self::Constraints => format!("scheduling constraints not satisfied on {count} {nodes}"),
            Self::Platform => format!("unsupported platform on {count} {nodes}"),
            Self::Files => {
                format!(
                    "release without secrets and configs, to be updated first, on {count} {nodes}"
                )
            }
            Self::Beside => format!("wrong services beside it on {count} {nodes}"),
            Self::Access => format!(
                "release without what a service asks of its node, to be updated first, on {count} \
                 {nodes}"
            ),
            Self::Mounts => {
                format!(
                    "release without options and paths of volumes, to be updated first, on \
                     {count} {nodes}"
                )
            }
            Self::Plugin => format!("missing plugin on {count} {nodes}"),
            Self::Resources => format!("insufficient resources on {count} {nodes}"),
            Self::Mesh => format!("no address on the ingress network on {count} {nodes}"),
            Self::HostPort => format!("host-mode port already in use on {count} {nodes}"),
            Self::MaxReplicas => "max replicas per node limit exceed".to_owned(),
        }
    }
}

/// What one node lacks.
fn detail(asked: &Requirements, lack: &Lack<'_>) -> String {
    let Lack { node, carried, misfit } = lack;
    let description = &node.description;
    match misfit {
        Misfit::Unavailable => availability(node).to_owned(),
        Misfit::Constraints => first_unfulfilled(node, asked),
        Misfit::Platform => {
            let platform = &description.platform;
            format!("is {}/{}", platform.os, platform.architecture)
        }
        Misfit::Files => "its release knows no secrets and configs".to_owned(),
        Misfit::Beside => first_broken(node, asked).map(Term::lack).unwrap_or_default(),
        Misfit::Access => "its release knows nothing of what is asked of it".to_owned(),
        Misfit::Mounts => "its release knows volumes by their names alone".to_owned(),
        Misfit::Plugin => {
            let driver = missing_plugin(node, asked).unwrap_or_default();
            format!("the volume driver {driver} is missing")
        }
        Misfit::Cpus => {
            let total = i128::from(description.nano_cpus);
            let free = (total - carried.load.nano_cpus).max(0);
            format!("{} of {} cores free", cores(free), cores(total))
        }
        Misfit::Memory => {
            let total = i128::from(description.memory_bytes);
            let free = (total - carried.load.memory).max(0);
            format!("{} of {} memory free", bytes(free), bytes(total))
        }
        Misfit::Generic => match lacking_kind(node, carried.load, asked) {
            Some((kind, Some((free, has)))) => format!("{free} of {has} {kind} free"),
            Some((kind, None)) => format!("has no {kind}"),
            None => String::new(),
        },
        Misfit::Mesh => match node.allocation_error.as_str() {
            "" => "has no address on the ingress network yet".to_owned(),
            error => error.to_owned(),
        },
        Misfit::HostPort => taken_port(*carried, asked)
            .map_or_else(String::new, |(protocol, port)| {
                format!("port {port}/{} is in use", protocol.as_str())
            }),
        Misfit::MaxReplicas => {
            format!("has {} of at most {}", carried.count, asked.placement.max_replicas_per_node)
        }
    }
}

/// By how much a node has too little, among those that have too little of the same.
fn shortage(asked: &Requirements, lack: &Lack<'_>) -> i128 {
    let Lack { node, carried, misfit } = lack;
    let (load, has) = (carried.load, &node.description);
    match misfit {
        Misfit::Cpus => i128::from(asked.nano_cpus) + load.nano_cpus - i128::from(has.nano_cpus),
        Misfit::Memory => i128::from(asked.memory) + load.memory - i128::from(has.memory_bytes),
        // One that has nothing of it comes last.
        Misfit::Generic => lacking_kind(node, load, asked)
            .and_then(|(_, amounts)| amounts)
            .map_or(i128::MAX, |(free, _)| -i128::from(free)),
        Misfit::MaxReplicas => i128::try_from(carried.count).unwrap_or(i128::MAX),
        Misfit::Unavailable
        | Misfit::Constraints
        | Misfit::Platform
        | Misfit::Files
        | Misfit::Access
        | Misfit::Beside
        | Misfit::Mounts
        | Misfit::Plugin
        | Misfit::Mesh
        | Misfit::HostPort => 0,
    }
}

fn availability(node: &Node) -> &'static str {
    if node.has_left() {
        return "has left";
    }
    match (node.status.state, node.spec.availability) {
        (NodeState::Down, _) => "is down",
        (NodeState::Unknown | NodeState::Disconnected, _) => "is not ready yet",
        (NodeState::Ready, Availability::Drain) => "is drained",
        (NodeState::Ready, Availability::Pause) => "is paused",
        (NodeState::Ready, Availability::Active) => "is leaving",
    }
}

/// Cores, rounded down: what is said to be free is free.
fn cores(nano: i128) -> String {
    let (whole, rest) = (nano / 1_000_000_000, nano % 1_000_000_000 / 1_000_000);
    let digits = format!("{rest:03}");
    let digits = digits.trim_end_matches('0');
    format!("{whole}.{}", if digits.is_empty() { "0" } else { digits })
}

/// An amount of memory, rounded down to a tenth of its unit.
fn bytes(bytes: i128) -> String {
    let units = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
    let unit = units.into_iter().find(|(_, power)| 1 << power <= bytes);
    let Some((unit, power)) = unit else { return format!("{bytes} B") };
    let tenths = (bytes * 10) >> power;
    format!("{}.{} {unit}", tenths / 10, tenths % 10)
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(TEXT_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::check;
    use expect_test::expect;

    #[test]
    fn amounts_are_rounded_down() {
        assert_eq!(cores(1_200_000_000), "1.2");
        assert_eq!(cores(2_000_000_000), "2.0");
        assert_eq!(cores(1_999_999_999), "1.999");
        assert_eq!(cores(0), "0.0");
        assert_eq!(bytes((1 << 30) - 1), "1023.9 MiB");
        assert_eq!(bytes(3 << 29), "1.5 GiB");
        assert_eq!(bytes(100), "100 B");
    }

    #[test]
    fn each_node_says_what_it_lacks_and_those_that_lack_least_come_first() {
        check(
            "
            node n1 down
            node n2 drain
            node n3 pause
            node n4 leaving
            node n5 arch=arm64 disk=ssd
            node n6 arch=amd64
            node n7 arch=amd64 disk=hdd
            node n8 arch=amd64 disk=ssd cpus=2000000000 memory=3221225472
            node n9 arch=amd64 disk=ssd cpus=4000000000 memory=1073741824
            service other replicas=2 cpus=800000000
            task other.1 running n8
            task other.2 running n9
            service db replicas=1 platforms=amd64 cpus=1500000000 memory=2147483648 constraint=node.labels.disk==ssd
            ",
            &expect![[r#"
                + db.1 pending running - error: no suitable node (4 nodes not available for new tasks; scheduling constraints not satisfied on 2 nodes; insufficient resources on 2 nodes; unsupported platform on 1 node). n9: 1.0 GiB of 1.0 GiB memory free; n8: 1.2 of 2.0 cores free; n5: is /arm64; n6: node.labels.disk==ssd is missing; n7: node.labels.disk is hdd, not ssd; n1: is down; n2: is drained; n3: is paused; n4: is leaving
            "#]],
        );
    }

    #[test]
    fn of_nodes_that_lack_the_same_the_one_with_most_of_it_comes_first() {
        check(
            "
            node n1 memory=10
            node n2 memory=30
            node n3 memory=20
            node n4 memory=99 generic=gpu=1
            node n5 memory=99
            node n6 memory=99 generic=gpu=2
            service db replicas=1 memory=40 generic=gpu=3
            ",
            &expect![[r#"
                + db.1 pending running - error: no suitable node (insufficient resources on 6 nodes). n6: 2 of 2 gpu free; n4: 1 of 1 gpu free; n5: has no gpu; n2: 30 B of 30 B memory free; n3: 20 B of 20 B memory free; n1: 10 B of 10 B memory free
            "#]],
        );
    }

    #[test]
    fn ten_nodes_are_named_and_the_others_counted() {
        let nodes: Vec<String> = (10..40).map(|node| format!("node n{node} pause")).collect();
        let nodes = nodes.join("\n");
        check(
            &format!("{nodes}\nnode n99 memory=5\nservice db replicas=1 memory=10\n"),
            &expect![[r#"
                + db.1 pending running - error: no suitable node (30 nodes not available for new tasks; insufficient resources on 1 node). n99: 5 B of 5 B memory free; n10: is paused; n11: is paused; n12: is paused; n13: is paused; n14: is paused; n15: is paused; n16: is paused; n17: is paused; n18: is paused; and 21 more
            "#]],
        );
    }

    #[test]
    fn ten_tasks_of_a_kind_name_nodes_and_the_others_say_it_in_docker_s_words() {
        check(
            "
            node n1 memory=5
            service db replicas=12 memory=10
            ",
            &expect![[r#"
                + db.1 pending running - error: no suitable node (insufficient resources on 1 node). n1: 5 B of 5 B memory free
                + db.10 pending running - error: no suitable node (insufficient resources on 1 node). n1: 5 B of 5 B memory free
                + db.11 pending running - error: no suitable node (insufficient resources on 1 node)
                + db.12 pending running - error: no suitable node (insufficient resources on 1 node)
                + db.2 pending running - error: no suitable node (insufficient resources on 1 node). n1: 5 B of 5 B memory free
                + db.3 pending running - error: no suitable node (insufficient resources on 1 node). n1: 5 B of 5 B memory free
                + db.4 pending running - error: no suitable node (insufficient resources on 1 node). n1: 5 B of 5 B memory free
                + db.5 pending running - error: no suitable node (insufficient resources on 1 node). n1: 5 B of 5 B memory free
                + db.6 pending running - error: no suitable node (insufficient resources on 1 node). n1: 5 B of 5 B memory free
                + db.7 pending running - error: no suitable node (insufficient resources on 1 node). n1: 5 B of 5 B memory free
                + db.8 pending running - error: no suitable node (insufficient resources on 1 node). n1: 5 B of 5 B memory free
                + db.9 pending running - error: no suitable node (insufficient resources on 1 node). n1: 5 B of 5 B memory free
            "#]],
        );
    }
}
