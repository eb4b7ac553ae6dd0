//! Tasks that were replaced for their node's sake.

use super::{fits, is_left_at_once};
use std::collections::BTreeSet;
use std::sync::Arc;
use store::View;
use types::{Task, TaskId, TaskState};

/// Tasks whose node was lost, drained at once or did not fit any more at some time: nobody waits for them.
#[derive(Debug, Default)]
pub(super) struct Displaced(BTreeSet<TaskId>);

impl Displaced {
    /// Takes in what is stored now.
    pub(super) fn note(&mut self, view: &View) {
        let counts = |task: &&Arc<Task>| task.occupies() || is_given_up(task);
        for task in view.tasks().filter(counts) {
            let Some(node) = &task.node else { continue };
            if view.node(node).is_none_or(|node| is_left_at_once(node) || !fits(node, task)) {
                self.0.insert(task.id.clone());
            }
        }
    }

    pub(super) fn has(&self, task: &TaskId) -> bool {
        self.0.contains(task)
    }
}

/// Nobody waits for it, though it may run.
fn is_given_up(task: &Task) -> bool {
    task.status.state == TaskState::Orphaned
}
