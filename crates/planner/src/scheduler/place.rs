//! Pending tasks get their nodes.

use super::beside::terms;
use super::explain::{Lack, explain};
use super::filter::{Requirements, fit, given};
use super::spread::{Candidates, Rank};
use crate::Planning;
use crate::index::{Carried, Index};
use crate::orchestrator::sticky;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use store::View;
use types::{Node, NodeId, ServiceId, Task, TaskState, Timestamp};

/// Failures of a service's tasks on a node count for this long.
const FAILURES_WITHIN: Duration = Duration::from_mins(5);

/// Nodes that are tried before all of them are gathered.
const TRIED: usize = 32;

/// So many tasks that ask for the same say of each node what it lacks, which is written anew with all
/// that happens there; the others say how many nodes lack what.
pub(super) const EXPLAINED: usize = 10;

/// Tasks that ask for the same.
type Kind = (Requirements, Vec<Arc<Task>>);

/// Gives pending tasks their nodes; one that fits on none says why. Those that name their node come
/// first, as they can go nowhere else; they are asked where something changed there. The others are
/// asked where they `may_be_placed`, or where one of the first was. Returns the services of all that
/// were asked.
pub(crate) fn schedule(
    planning: &mut Planning<'_>,
    index: &mut Index,
    may_be_placed: bool,
) -> BTreeSet<ServiceId> {
    // What is placed changes no node.
    let view = View::clone(&planning.tx);
    let mut asked: BTreeSet<ServiceId> = index.stirred.iter().map(|it| it.0.clone()).collect();
    let mut unplaced: Vec<Kind> = Vec::new();
    let mut goes_on = true;
    while goes_on {
        let mut any = place_bound(planning, index, &view);
        if any || may_be_placed || !unplaced.is_empty() {
            unplaced.clear();
            any |= place_free(planning, index, &view, (&mut unplaced, &mut asked));
        }
        // What was placed now may be what others want beside them.
        goes_on = any && !index.affine.is_empty() && !planning.is_cut();
    }
    // What one of them lacks may be what another one has just got.
    asked.extend(index.stirred.iter().map(|it| it.0.clone()));
    excuse_bound(planning, index, &view);
    for (requirements, tasks) in unplaced.iter().filter(|(_, tasks)| !tasks.is_empty()) {
        let all = index.loads.on_all(&view, &requirements.service);
        let lacks = all.filter_map(|(node, carried)| {
            let misfit = fit(node, carried, requirements).err()?;
            Some(Lack { node, carried, misfit })
        });
        let why = explain(requirements, lacks.collect());
        for (at, task) in tasks.iter().enumerate() {
            let reason = if at < EXPLAINED { &why.whole } else { &why.short };
            excuse(planning, index, (task, reason));
        }
    }
    index.have_placed(&planning.tx);
    if !planning.is_cut() {
        index.stirred.clear();
    }
    asked
}

/// Places tasks that may go to any node, and says what is left of each kind and which services were
/// asked; says whether there was one.
fn place_free(
    planning: &mut Planning<'_>,
    index: &mut Index,
    view: &View,
    (unplaced, asked): (&mut Vec<Kind>, &mut BTreeSet<ServiceId>),
) -> bool {
    let mut any = false;
    for service in Index::services(&index.pending) {
        if planning.admits_any_of(&service) {
            for (requirements, tasks) in kinds(index, view, &service) {
                let all = tasks.len();
                let choice = Choice::new((view, index), requirements, planning.now);
                let kind = choice.place_all(planning, index, tasks);
                any |= kind.1.len() < all;
                unplaced.push(kind);
            }
        }
        asked.insert(service);
    }
    any
}

/// Says whether one of the nodes that are asked for, with how many tasks of the service each has, can
/// run one more task like this.
pub(crate) fn any_fits(
    (view, index): (&View, &Index),
    task: &Task,
    has: impl Fn(&NodeId) -> Option<usize>,
) -> bool {
    let asked = Requirements::of((view, index), task);
    view.nodes().any(|node| {
        let Some(count) = has(&node.id) else { return false };
        let load = index.loads.on(&node.id, &task.service).load;
        fit(node, Carried { load, count }, &asked).is_ok()
    })
}

/// The pending tasks of a service that may go to any node, each kind in order.
fn kinds(index: &Index, view: &View, service: &ServiceId) -> Vec<Kind> {
    let mut kinds: Vec<Kind> = Vec::new();
    for task in Index::of_service(&index.pending, service).filter_map(|id| view.task(id)) {
        match kinds.iter_mut().find(|(requirements, _)| requirements.are_of(task)) {
            Some((_, tasks)) => tasks.push(Arc::clone(task)),
            None => kinds.push((Requirements::of((view, index), task), vec![Arc::clone(task)])),
        }
    }
    kinds
}

/// Places tasks that name their node; says whether there was one.
fn place_bound(planning: &mut Planning<'_>, index: &mut Index, view: &View) -> bool {
    let mut any = false;
    for (task, node) in stirred(index, view) {
        let asked = Requirements::of((view, index), &task);
        let carried = index.loads.on(&node.id, &task.service);
        if fit(&node, carried, &asked).is_ok() && planning.admits(&task.id) {
            place(planning, index, (&task, &node));
            any = true;
        }
    }
    any
}

fn excuse_bound(planning: &mut Planning<'_>, index: &mut Index, view: &View) {
    for (task, node) in stirred(index, view) {
        let asked = Requirements::of((view, index), &task);
        let carried = index.loads.on(&node.id, &task.service);
        let Err(misfit) = fit(&node, carried, &asked) else { continue };
        let mut why = explain(&asked, vec![Lack { node: &node, carried, misfit }]).whole;
        let service = planning.tx.service(&task.service);
        if let Some(sticky) = service.and_then(|it| sticky::waits_for(it, &task, &node)) {
            why = format!("{why}; {sticky}");
        }
        excuse(planning, index, (&task, &why));
    }
}

/// The pending tasks that name their node, where something changed there.
fn stirred(index: &Index, view: &View) -> Vec<(Arc<Task>, Arc<Node>)> {
    let tasks = index.stirred.iter().filter_map(|(_, _, id)| view.task(id));
    let with_node = |task: &Arc<Task>| {
        let node = view.node(task.node.as_ref()?)?;
        Some((Arc::clone(task), Arc::clone(node)))
    };
    tasks.filter_map(with_node).collect()
}

fn place(planning: &mut Planning<'_>, index: &mut Index, (task, node): (&Arc<Task>, &Node)) {
    let assigned = (TaskState::Assigned, "scheduler assigned task to node");
    let given = given(node, index.loads.on(&node.id, &task.service).load, task);
    planning.enter(&task.id, assigned, |task| {
        task.node = Some(node.id.clone());
        task.generic = given;
    });
    remember(planning, task, node);
    if let Some(placed) = planning.tx.task(&task.id) {
        index.place(task, placed);
    }
}

/// A service that is sticky keeps where its slots are; nodes that are gone are forgotten with that.
fn remember(planning: &mut Planning<'_>, task: &Task, node: &Node) {
    let view: &View = &planning.tx;
    let service = view.service(&task.service);
    let Some(service) = service.filter(|service| sticky::remembers(service, task, node)) else {
        return;
    };
    // A manager of the release before would lose it; until it is updated history alone says it.
    if !store::readers::know_moves(view) {
        return;
    }
    // A slot that had another home has lost it with its node, as others may have.
    let is_there = |id: &NodeId| view.node(id).is_some();
    let homes = service.homes.values();
    let gone: BTreeSet<NodeId> = if service.homes.contains_key(&task.slot) {
        homes.filter(|id| !is_there(id)).cloned().collect()
    } else {
        BTreeSet::new()
    };
    planning.tx.edit_service(&task.service, |service| {
        service.homes.retain(|_, home| !gone.contains(home));
        service.homes.insert(task.slot, node.id.clone());
    });
}

fn excuse(planning: &mut Planning<'_>, index: &mut Index, (task, reason): (&Arc<Task>, &str)) {
    planning.excuse(&task.id, reason);
    if let Some(excused) = planning.tx.task(&task.id) {
        index.excuse(task, excused);
    }
}

/// The choice of nodes for one kind of tasks.
struct Choice<'a> {
    view: &'a View,
    requirements: Requirements,
    /// Tasks of the service that failed lately, on each node.
    failures: BTreeMap<&'a NodeId, usize>,
}

impl<'a> Choice<'a> {
    fn new((view, index): (&'a View, &Index), requirements: Requirements, now: Timestamp) -> Self {
        let mut failures = BTreeMap::new();
        for task in index.failed(&requirements.service).filter_map(|task| view.task(task)) {
            if let Some(node) = &task.node
                && now.since(task.status.since) < FAILURES_WITHIN
            {
                *failures.entry(node).or_default() += 1;
            }
        }
        Self { view, requirements, failures }
    }

    /// Gives tasks their nodes; returns those that fit on none, and what they asked for last.
    fn place_all(
        mut self,
        planning: &mut Planning<'_>,
        index: &mut Index,
        tasks: Vec<Arc<Task>>,
    ) -> Kind {
        let (mut candidates, mut unplaced) = (None, Vec::new());
        if let Some(task) = tasks.first() {
            self.look_beside(index, task);
        }
        for task in tasks {
            if !planning.admits(&task.id) {
                continue;
            }
            let idlest = if candidates.is_none() { self.idlest(index) } else { None };
            let first = || candidates.get_or_insert_with(|| self.gather(index)).first();
            let first = idlest.or_else(first);
            let Some((rank, node)) = first.and_then(|it| Some((it, self.view.node(it.node)?)))
            else {
                unplaced.push(task);
                continue;
            };
            place(planning, index, (&task, node));
            if self.requirements.terms.iter().any(|term| term.follows(&task.service)) {
                self.look_beside(index, &task);
                candidates = None;
            }
            if let Some(candidates) = &mut candidates {
                let carried = index.loads.on(&node.id, &self.requirements.service);
                let fits = fit(node, carried, &self.requirements).is_ok();
                candidates.replace_first(fits.then(|| rank.with(carried)));
            }
        }
        (self.requirements, unplaced)
    }

    /// What is wanted of other services is asked anew: tasks were placed since.
    fn look_beside(&mut self, index: &Index, task: &Task) {
        if !self.requirements.terms.is_empty() {
            self.requirements.terms = terms((self.view, index), task);
        }
    }

    /// The node with the least to do, where it has no task of the service: none comes before it.
    /// Looks at a few, so that most often nobody has to look at all.
    fn idlest(&self, index: &Index) -> Option<Rank<'a>> {
        if !self.requirements.placement.preferences.is_empty() {
            return None;
        }
        let nodes = index.loads.idlest().take(TRIED).filter_map(|id| self.view.node(id));
        let mut ranks = nodes.enumerate().filter_map(|(at, node)| {
            self.rank((at, node), index.loads.on(&node.id, &self.requirements.service))
        });
        ranks.find(Rank::is_unburdened)
    }

    fn gather(&self, index: &Index) -> Candidates<'a> {
        let preferences = &self.requirements.placement.preferences;
        let mut candidates = Candidates::new(preferences);
        let nodes = index.loads.on_all(self.view, &self.requirements.service);
        for (at, (node, carried)) in nodes.enumerate() {
            if let Some(rank) = self.rank((at, node), carried) {
                candidates.insert(preferences, node, rank);
            }
        }
        candidates
    }

    /// The rank of a node that can run one more task.
    fn rank(&self, (at, node): (usize, &'a Node), carried: Carried<'_>) -> Option<Rank<'a>> {
        fit(node, carried, &self.requirements).ok()?;
        let failures = self.failures.get(&node.id).copied().unwrap_or(0);
        let wishes = self.requirements.terms.iter().filter(|term| term.soft);
        let unmet = wishes.filter(|term| !term.holds(&node.id)).count();
        Some(Rank::of((at, &node.id), carried, (failures, unmet)))
    }
}
