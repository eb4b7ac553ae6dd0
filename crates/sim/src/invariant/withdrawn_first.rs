//! A task that serves is told to stop only after nobody who is connected leads traffic to it any
//! more, or the bounded wait has passed: no request goes to a process that is on its way out.

use super::serves::balanced;
use super::{Invariant, Verdict, is_connected};
use crate::context::Happened;
use crate::node::{Container, Node};
use crate::world::World;
use agent::worker::{FAREWELL, WITHDRAWAL_MAX};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;
use types::{NodeState, Task, TaskId};

/// What the waits of a node may be off by.
const SLACK: Duration = Duration::from_millis(5);

#[derive(Debug, Default)]
pub(super) struct WithdrawnFirst {
    /// Since when a stop is wanted.
    since: BTreeMap<(usize, TaskId), Duration>,
}

impl Invariant for WithdrawnFirst {
    fn name(&self) -> &'static str {
        "what serves is stopped after it was withdrawn"
    }

    fn happened(&mut self, world: &World, what: &Happened) -> Verdict {
        match what {
            Happened::Withdraws { node, task } => {
                self.since.entry((*node, task.clone())).or_insert(world.ctx.now);
                Ok(())
            }
            Happened::Stops { node, task } => {
                let key = (*node, task.clone());
                let since = self.since.get(&key).copied().unwrap_or(world.ctx.now);
                let leaves = world.nodes[*node].wants_to_leave;
                let wait = if leaves { FAREWELL } else { WITHDRAWAL_MAX };
                let is_over = world.ctx.now + SLACK >= since + wait;
                // There is nothing to wait for where nobody knows that the node leaves.
                if is_over || world.nodes[*node].leaves_untold {
                    return Ok(());
                }
                let Some(task) = world.nodes[*node].task(task) else { return Ok(()) };
                check(world, task, since)
            }
            _ => Ok(()),
        }
    }
}

fn check(world: &World, task: &Task, since: Duration) -> Verdict {
    let attached = task.attachments.iter();
    let addresses: BTreeSet<IpAddr> = attached.flat_map(|it| it.addresses.iter()).collect();
    for node in world.nodes.iter().filter(|node| is_waited_for(world, node, since)) {
        if let Some(address) = leads(node, task, &addresses) {
            return Err(format!(
                "task {} stops, and node {} still leads to {address}",
                task.id, node.number
            ));
        }
    }
    Ok(())
}

/// One that is there, and was there when the task ceased to serve.
fn is_waited_for(world: &World, node: &Node, since: Duration) -> bool {
    let is_ready = world.view().node(&node.id).is_some_and(|node| match node.status.state {
        NodeState::Ready => true,
        NodeState::Unknown | NodeState::Down | NodeState::Disconnected => false,
    });
    let session = world.session_of(node.number);
    let was_there = session.is_some_and(|it| it.acknowledged > 0 && it.since <= since);
    is_ready && was_there && is_connected(world, node)
}

fn leads(node: &Node, task: &Task, addresses: &BTreeSet<IpAddr>) -> Option<IpAddr> {
    let desired = &node.kernel.desired;
    // What has ended asks nobody, though the kernel may not have let go of its rules yet.
    let runs = |id: &String| node.containers.get(id).is_some_and(Container::is_running);
    let sandboxes = desired.sandboxes.iter().filter(|(id, _)| runs(id));
    let vips = sandboxes.flat_map(|(_, sandbox)| balanced(sandbox)).map(|(_, backend)| backend);
    let mesh = desired.mesh.ports.values().flat_map(|port| port.backends.iter().copied());
    let mut found = vips.filter(|address| addresses.contains(address));
    let mut in_mesh = mesh.filter(|address| task.ingress_addresses.contains(*address));
    found.next().or_else(|| in_mesh.next())
}
