//! How objects are found otherwise than by their ids.

use crate::claim::{Claim, Claims};
use crate::{Key, Object};
use imbl::{OrdMap, OrdSet};
use std::sync::Arc;
use types::{NetworkId, NodeId, ServiceId, Task, TaskId};

pub(crate) type TasksBy<I> = OrdMap<I, OrdMap<TaskId, Arc<Task>>>;

/// Follows from the tables; kept with each object that is stored or removed.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Indexes {
    pub(crate) claims: Claims,
    pub(crate) tasks_by_service: TasksBy<ServiceId>,
    pub(crate) tasks_by_node: TasksBy<NodeId>,
    /// Networks of the routing mesh: there is one.
    pub(crate) ingress: OrdSet<NetworkId>,
}

impl Indexes {
    /// Follows the object of `key` from what it was to what it is.
    pub(crate) fn replace(&mut self, key: &Key, was: Option<&Object>, is: Option<&Object>) {
        let claims = |object: Option<&Object>| object.map(Claim::all_of).unwrap_or_default();
        self.claims.replace(key, claims(was), claims(is));
        let ((task_was, task_is), (ingress_was, ingress_is)) =
            ((task(was), task(is)), (ingress(was), ingress(is)));
        follow(&mut self.tasks_by_service, task_was, task_is, |task| Some(&task.service));
        follow(&mut self.tasks_by_node, task_was, task_is, |task| task.node.as_ref());
        if ingress_was != ingress_is {
            ingress_was.map(|id| self.ingress.remove(id));
            ingress_is.map(|id| self.ingress.insert(id.clone()));
        }
    }
}

fn task(object: Option<&Object>) -> Option<&Arc<Task>> {
    match object? {
        Object::Task(task) => Some(task),
        Object::Cluster(_) | Object::Node(_) | Object::Network(_) | Object::Service(_) => None,
    }
}

fn ingress(object: Option<&Object>) -> Option<&NetworkId> {
    match object? {
        Object::Network(network) => Some(&network.id).filter(|_| network.spec.ingress),
        Object::Cluster(_) | Object::Node(_) | Object::Service(_) | Object::Task(_) => None,
    }
}

/// Puts a task into the row of an index that it belongs to now. An index keeps no empty rows.
fn follow<I: Clone + Ord>(
    index: &mut TasksBy<I>,
    was: Option<&Arc<Task>>,
    is: Option<&Arc<Task>>,
    row: impl Fn(&Task) -> Option<&I>,
) {
    let (left, entered) = (was.and_then(|task| row(task)), is.and_then(|task| row(task)));
    if let (Some(left), Some(was)) = (left, was)
        && entered != Some(left)
        && let Some(tasks) = index.get_mut(left)
    {
        tasks.remove(&was.id);
        if tasks.is_empty() {
            index.remove(left);
        }
    }
    if let (Some(entered), Some(is)) = (entered, is) {
        index.entry(entered.clone()).or_default().insert(is.id.clone(), Arc::clone(is));
    }
}
