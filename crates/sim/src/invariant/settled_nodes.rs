//! After the calm, every node is there, has acknowledged all that it was told, runs its tasks and
//! nothing else, and its kernel and names are what follows from the store.

use super::{Invariant, Verdict};
use crate::node::Node;
use crate::world::World;
use manager::assign::{Files, Topology};
use std::collections::BTreeSet;
use store::View;
use types::{NodeState, TaskId, TaskState};

#[derive(Debug)]
pub(super) struct SettledNodes;

impl Invariant for SettledNodes {
    fn name(&self) -> &'static str {
        "after the calm every node holds what follows from the store"
    }

    fn settled(&mut self, world: &World) -> Verdict {
        let view = world.view();
        let topology = Topology::of(view);
        for node in &world.nodes {
            let checked = check(world, (view, &topology), node);
            checked.map_err(|why| format!("node {}: {why}", node.number))?;
        }
        Ok(())
    }
}

fn check(world: &World, (view, topology): (&View, &Topology), node: &Node) -> Verdict {
    let running: BTreeSet<&TaskId> =
        node.containers.values().filter(|it| it.is_running()).map(|it| &it.task).collect();
    if node.is_gone || node.wants_to_leave {
        return match (node.is_gone, running.first()) {
            (true, None) => Ok(()),
            (is_gone, task) => Err(format!("it leaves; gone: {is_gone}, still there: {task:?}")),
        };
    }
    // One that was removed is nobody's any more.
    let Some(stored) = view.node(&node.id) else { return Ok(()) };
    if stored.status.state != NodeState::Ready {
        return Err(format!("is {:?}", stored.status));
    }
    if !stored.trouble.is_empty() {
        return Err(format!("says {:?}", stored.trouble));
    }
    let session = world.session_of(node.number);
    if session.is_none_or(|it| it.acknowledged != it.sent) {
        return Err(format!("its session: {session:?}"));
    }
    if !node.is_settled() {
        return Err("is busy".to_owned());
    }
    let tasks = view.tasks_of_node(&node.id);
    let wanted: BTreeSet<&TaskId> =
        tasks.filter(|task| task.status.state == TaskState::Running).map(|task| &task.id).collect();
    if running != wanted {
        return Err(format!("runs {running:?}, and should run {wanted:?}"));
    }
    let Some((known, here)) = node.knows() else { return Err("is not up".to_owned()) };
    let share = topology.assignments(view, (&node.id, &Files::default()), |_| false).whole();
    if share.knowledge != *known {
        return Err(format!("knows {known:?}\nand should know {:?}", share.knowledge));
    }
    let attached: BTreeSet<&TaskId> =
        here.sandboxes.values().filter_map(|sandbox| sandbox.task.as_ref()).collect();
    if attached != wanted {
        return Err(format!("has attached {attached:?}, and should have {wanted:?}"));
    }
    let mut here = here.clone();
    here.hidden.clear();
    let desired = discovery::desired(&share.knowledge, &here);
    if desired != *node.kernel.desired {
        return Err(format!("holds {:?}\nand should hold {desired:?}", node.kernel.desired));
    }
    if discovery::zones(&share.knowledge, &here) != node.kernel.zones {
        return Err("its names are not what follows".to_owned());
    }
    Ok(())
}
