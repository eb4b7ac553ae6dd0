//! A node that has said in its session that it leaves gets no new tasks.

use super::{Invariant, Verdict};
use crate::context::Happened;
use crate::world::World;

#[derive(Debug)]
pub(super) struct Leaving;

impl Invariant for Leaving {
    fn name(&self) -> &'static str {
        "a node that leaves gets no new tasks"
    }

    fn happened(&mut self, world: &World, what: &Happened) -> Verdict {
        let Happened::Stored { before } = what else { return Ok(()) };
        for node in &world.nodes {
            let session = world.session_of(node.number);
            if !session.is_some_and(|session| node.leaves_on(session.connection)) {
                continue;
            }
            for task in world.view().tasks_of_node(&node.id) {
                let was = before.task(&task.id);
                if was.is_none_or(|was| was.node.is_none()) {
                    return Err(format!("node {} gets task {}", node.number, task.id));
                }
            }
        }
        Ok(())
    }
}
