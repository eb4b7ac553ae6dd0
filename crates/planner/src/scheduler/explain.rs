//! Why no node can run a task, as Docker's users know it.

use super::filter::Misfit;
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// The reason for the most nodes first.
pub(super) fn explain(misfits: &[Misfit]) -> String {
    let mut counts: BTreeMap<Misfit, usize> = BTreeMap::new();
    for misfit in misfits {
        *counts.entry(*misfit).or_default() += 1;
    }
    let mut counts: Vec<(Misfit, usize)> = counts.into_iter().collect();
    counts.sort_by_key(|(misfit, count)| (Reverse(*count), *misfit));
    let reasons: Vec<String> =
        counts.into_iter().map(|(misfit, count)| reason(misfit, count)).collect();
    if reasons.is_empty() {
        return "no suitable node".to_owned();
    }
    format!("no suitable node ({})", reasons.join("; "))
}

fn reason(misfit: Misfit, count: usize) -> String {
    let nodes = if count == 1 { "node" } else { "nodes" };
    match misfit {
        Misfit::Unavailable => format!("{count} {nodes} not available for new tasks"),
        Misfit::Constraints => format!("scheduling constraints not satisfied on {count} {nodes}"),
        Misfit::Platform => format!("unsupported platform on {count} {nodes}"),
        Misfit::Files => {
            format!("release without secrets and configs, to be updated first, on {count} {nodes}")
        }
        Misfit::Cpus => format!("insufficient cpus on {count} {nodes}"),
        Misfit::Memory => format!("insufficient memory on {count} {nodes}"),
        Misfit::Mesh => format!("no address on the ingress network on {count} {nodes}"),
        Misfit::HostPort => format!("host-mode port already in use on {count} {nodes}"),
        Misfit::MaxReplicas => "max replicas per node limit exceed".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_common_reason_comes_first() {
        let misfits = [Misfit::Memory, Misfit::Constraints, Misfit::Constraints];
        assert_eq!(
            explain(&misfits),
            "no suitable node (scheduling constraints not satisfied on 2 nodes; insufficient memory on 1 node)"
        );
        assert_eq!(explain(&[]), "no suitable node");
    }
}
