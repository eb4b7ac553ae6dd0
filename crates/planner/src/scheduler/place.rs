//! Pending tasks get their nodes.

use super::explain::explain;
use super::filter::{Misfit, Requirements, fit};
use super::spread::{Candidates, Rank};
use crate::Planning;
use crate::index::{Index, Load};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use store::View;
use types::{Node, NodeId, ServiceId, Task, TaskState, Timestamp};

/// Failures of a service's tasks on a node count for this long.
const FAILURES_WITHIN: Duration = Duration::from_mins(5);

/// Nodes that are tried before all of them are gathered.
const TRIED: usize = 32;

/// Carries nothing.
pub(super) static IDLE: Load = Load::NONE;

/// Gives all pending tasks their nodes. A task that fits on none says why.
pub(crate) fn schedule(planning: &mut Planning<'_>, index: &mut Index) {
    // What is placed changes no node.
    let view = View::clone(&planning.tx);
    let mut unplaced: Vec<Arc<Task>> = Vec::new();
    for service in Index::services(&index.pending) {
        if !planning.admits_any_of(&service) {
            continue;
        }
        let tasks = Index::of_service(&index.pending, &service);
        let tasks: Vec<Arc<Task>> = tasks.filter_map(|id| view.task(id)).cloned().collect();
        let mut choice = Choice::new((&view, index), &service, planning.now);
        for task in tasks {
            if !planning.admits(&task.id) {
                continue;
            }
            match choice.next(index, &task) {
                Some(node) => choice.place(planning, index, (&task, &node)),
                None => unplaced.push(task),
            }
        }
    }
    // What one of them lacks may be what another one has just got.
    let mut told: Option<(Requirements, String)> = None;
    for task in unplaced {
        let reason = match &told {
            Some((requirements, reason)) if requirements.are_of(&task) && task.node.is_none() => {
                reason.clone()
            }
            Some(_) | None => {
                let requirements = Requirements::of(&task);
                let reason = explain(&misfits((&view, &index.loads), &task, &requirements));
                told = task.node.is_none().then(|| (requirements, reason.clone()));
                reason
            }
        };
        planning.excuse(&task.id, &reason);
        if let Some(excused) = planning.tx.task(&task.id) {
            index.excuse(&task, excused);
        }
    }
    index.have_placed(&planning.tx);
}

/// The choice of nodes for the pending tasks of one service.
struct Choice<'a> {
    view: &'a View,
    service: &'a ServiceId,
    /// Tasks of the service that failed lately, on each node.
    failures: BTreeMap<&'a NodeId, usize>,
    /// One for each kind of requirements: most often there is one.
    candidates: Vec<Candidates>,
}

impl<'a> Choice<'a> {
    fn new((view, index): (&'a View, &Index), service: &'a ServiceId, now: Timestamp) -> Self {
        let mut failures = BTreeMap::new();
        for task in index.failed(service).filter_map(|task| view.task(task)) {
            if let Some(node) = &task.node
                && now.since(task.status.since) < FAILURES_WITHIN
            {
                *failures.entry(node).or_default() += 1;
            }
        }
        Self { view, service, failures, candidates: Vec::new() }
    }

    /// The node a task goes to.
    fn next(&mut self, index: &Index, task: &Task) -> Option<Arc<Node>> {
        let loads = &index.loads;
        // A task of a global service has its node already.
        if let Some(node) = &task.node {
            let (node, load) = (self.view.node(node)?, loads.get(node).unwrap_or(&IDLE));
            let fits = fit(node, load, &Requirements::of(task)).is_ok();
            return fits.then(|| Arc::clone(node));
        }
        let known = self.candidates.iter().position(|it| it.requirements.are_of(task));
        let at = known.unwrap_or_else(|| {
            self.candidates.push(Candidates::new(Requirements::of(task)));
            self.candidates.len() - 1
        });
        if !self.candidates[at].are_gathered() {
            let idle = self.idlest(index, &self.candidates[at].requirements);
            if idle.is_some() {
                return idle;
            }
            let nodes = nodes(self.view, loads);
            let nodes = nodes.map(|(node, load)| (&**node, load, self.rank(node, load)));
            let nodes: Vec<_> = nodes.collect();
            self.candidates[at].gather(nodes);
        }
        self.candidates[at].first().and_then(|node| self.view.node(node)).cloned()
    }

    /// The node with the least to do, where it has no task of the service: none comes before it.
    /// Looks at a few, so that most often nobody has to look at all.
    fn idlest(&self, index: &Index, asked: &Requirements) -> Option<Arc<Node>> {
        if !asked.placement.preferences.is_empty() {
            return None;
        }
        let mut nodes = index.idlest.iter().take(TRIED).filter_map(|(_, id)| self.view.node(id));
        let is_best = |node: &&Arc<Node>| {
            let load = index.loads.get(&node.id).unwrap_or(&IDLE);
            self.rank(node, load).is_unburdened() && fit(node, load, asked).is_ok()
        };
        nodes.find(is_best).cloned()
    }

    fn place(
        &mut self,
        planning: &mut Planning<'_>,
        index: &mut Index,
        (task, node): (&Arc<Task>, &Node),
    ) {
        let was = self.rank(node, index.loads.get(&node.id).unwrap_or(&IDLE));
        let assigned = (TaskState::Assigned, "scheduler assigned task to node");
        planning.enter(&task.id, assigned, |task| task.node = Some(node.id.clone()));
        if let Some(placed) = planning.tx.task(&task.id) {
            index.place(task, placed);
        }
        let load = index.loads.get(&node.id).unwrap_or(&IDLE);
        let is = self.rank(node, load);
        for candidates in &mut self.candidates {
            candidates.follow(node, &was, (load, is.clone()));
        }
    }

    fn rank(&self, node: &Node, load: &Load) -> Rank {
        let failures = self.failures.get(&node.id).copied().unwrap_or(0);
        Rank::of(node, load, self.service, failures)
    }
}

/// All nodes with what they carry.
fn nodes<'a>(
    view: &'a View,
    loads: &'a BTreeMap<NodeId, Load>,
) -> impl Iterator<Item = (&'a Arc<Node>, &'a Load)> {
    // Both are in the order of ids.
    let mut loads = loads.iter().peekable();
    view.nodes().map(move |node| {
        while loads.next_if(|(id, _)| **id < node.id).is_some() {}
        let load = loads.next_if(|(id, _)| **id == node.id);
        (node, load.map_or(&IDLE, |(_, load)| load))
    })
}

/// Why a task fits on no node.
fn misfits(
    (view, loads): (&View, &BTreeMap<NodeId, Load>),
    task: &Task,
    requirements: &Requirements,
) -> Vec<Misfit> {
    let fixed = task.node.as_ref();
    nodes(view, loads)
        .filter(|(node, _)| fixed.is_none_or(|fixed| *fixed == node.id))
        .filter_map(|(node, load)| fit(node, load, requirements).err())
        .collect()
}
