//! Whoever has a vote is a manager: one that is demoted is out of the log before it is a worker. After
//! the calm those vote who are to be managers, and nobody else has a copy of the log.

use super::{Invariant, Verdict};
use crate::context::Happened;
use crate::world::World;
use std::collections::BTreeSet;
use types::{NodeId, NodeRole};

#[derive(Debug)]
pub(super) struct Managers;

impl Invariant for Managers {
    fn name(&self) -> &'static str {
        "who has the log is a manager"
    }

    fn happened(&mut self, world: &World, what: &Happened) -> Verdict {
        let Happened::Stored { .. } = what else { return Ok(()) };
        for id in world.ctx.log.all_members() {
            let Some(node) = world.nodes.get(world.ctx.log.machine(*id)) else { continue };
            let node = &node.id;
            let role = world.view().node(node).map(|node| node.role);
            if role != Some(NodeRole::Manager) {
                return Err(format!("{id} has the log, and {node} is {role:?}"));
            }
        }
        Ok(())
    }

    fn settled(&mut self, world: &World) -> Verdict {
        let view = world.view();
        // Of those that have left or are about to, nobody becomes one any more.
        let stays = |node: &NodeId| {
            world.node_of(node).is_some_and(|node| !node.is_gone && !node.wants_to_leave)
        };
        let managers =
            view.nodes().filter(|node| node.spec.role == NodeRole::Manager && stays(&node.id));
        let wanted: BTreeSet<Option<u64>> =
            managers.map(|node| node.manager.as_ref().map(|it| it.raft_id)).collect();
        let voters: BTreeSet<Option<u64>> =
            world.ctx.log.voters().iter().map(|id| Some(*id)).collect();
        if voters != wanted {
            return Err(format!("{voters:?} vote, and {wanted:?} should"));
        }
        let running: BTreeSet<Option<u64>> =
            world.managers.values().map(|manager| Some(manager.id)).collect();
        if running != wanted {
            return Err(format!("{running:?} have the log, and {wanted:?} should"));
        }
        Ok(())
    }
}
