//! Logs of tasks, gathered from the nodes that hold them.
//!
//! A subscription is split into parts, one for each node and time that tasks turn up. What becomes
//! of the lines is not seen here.

use super::command::{LogOutput, Output, SessionId, SubscriptionId};
use super::sessions::Sessions;
use std::collections::{BTreeMap, BTreeSet};
use store::View;
use types::{Fault, NodeId, Task, TaskId, Timestamp};
use wire::{LogOptions, LogRequest, LogSelector, SessionMessage};

/// Subscriptions at a time.
pub(super) const SUBSCRIPTIONS: usize = 512;

/// What a node was asked for, and the session on which.
#[derive(Debug)]
struct Part {
    node: NodeId,
    session: SessionId,
    tasks: BTreeSet<TaskId>,
}

/// A subscription that is being served.
#[derive(Debug)]
struct Served {
    selector: LogSelector,
    options: LogOptions,
    /// Tasks that were asked for and are still known.
    asked: BTreeSet<TaskId>,
    /// Parts that have not ended.
    parts: BTreeMap<String, Part>,
    /// Nodes whose absence was told.
    told: BTreeSet<NodeId>,
}

#[derive(Debug, Default)]
pub(crate) struct Subscriptions {
    served: BTreeMap<SubscriptionId, Served>,
    /// Parts that there ever were: with the session's id, which was drawn at random, the number of
    /// one is a name that no other manager gave before.
    parts: u64,
}

impl Subscriptions {
    /// Takes a new one; nodes are asked by [`Self::refresh`].
    pub(crate) fn add(
        &mut self,
        (id, selector, options): (SubscriptionId, LogSelector, LogOptions),
        out: &mut Vec<Output>,
    ) {
        if self.served.len() >= SUBSCRIPTIONS {
            let fault = Fault::unavailable("too many logs are being followed on this manager");
            let missing = LogOutput::Missing { subscription: id, fault };
            let over = LogOutput::Over { subscription: id };
            out.extend([missing, over].map(Output::Logs));
            return;
        }
        let (asked, parts, told) = Default::default();
        self.served.insert(id, Served { selector, options, asked, parts, told });
    }

    /// The client has gone: nodes need not go on.
    pub(crate) fn remove(
        &mut self,
        id: SubscriptionId,
        sessions: &Sessions,
        out: &mut Vec<Output>,
    ) {
        for (name, part) in self.served.remove(&id).into_iter().flat_map(|served| served.parts) {
            out.push(Output::Logs(LogOutput::Forget { part: name.clone() }));
            if sessions.is_open(&part.node, &part.session) {
                let (node, session) = (part.node, part.session);
                let message = SessionMessage::LogsDone(name);
                out.push(Output::Send { node, session, message });
            }
        }
    }

    /// Asks nodes for tasks that were not asked for yet; ends what is over.
    pub(crate) fn refresh(
        &mut self,
        (view, sessions): (&View, &Sessions),
        day: Timestamp,
        out: &mut Vec<Output>,
    ) {
        for (id, served) in &mut self.served {
            let is_over = |part: &Part| !sessions.is_open(&part.node, &part.session);
            let lost: Vec<String> = served
                .parts
                .iter()
                .filter(|(_, part)| is_over(part))
                .map(|(name, _)| name.clone())
                .collect();
            for name in lost {
                served.lose(*id, &name, day, out);
            }
            served.ask((*id, &mut self.parts), (view, sessions), out);
        }
        self.end(out);
    }

    /// A node has no more for a part.
    pub(crate) fn ended(&mut self, part: &str, out: &mut Vec<Output>) {
        out.push(Output::Logs(LogOutput::Forget { part: part.to_owned() }));
        for served in self.served.values_mut() {
            served.parts.remove(part);
        }
        self.end(out);
    }

    /// The rest of a part will not come, as its call broke off. What follows is to be asked for
    /// again.
    pub(crate) fn broken(&mut self, part: &str, day: Timestamp, out: &mut Vec<Output>) {
        for (id, served) in &mut self.served {
            served.lose(*id, part, day, out);
        }
    }

    /// Ends those that have nothing left.
    fn end(&mut self, out: &mut Vec<Output>) {
        let over = |served: &Served| !served.options.follow && served.parts.is_empty();
        for (subscription, _) in self.served.extract_if(.., |_, served| over(served)) {
            out.push(Output::Logs(LogOutput::Over { subscription }));
        }
    }
}

impl Served {
    /// A part will not come, if it is one of these: those who follow ask for the rest of it again.
    fn lose(&mut self, id: SubscriptionId, name: &str, day: Timestamp, out: &mut Vec<Output>) {
        let Some(part) = self.parts.remove(name) else { return };
        out.push(Output::Logs(LogOutput::Forget { part: name.to_owned() }));
        if self.options.follow {
            self.asked.retain(|task| !part.tasks.contains(task));
            self.options.since = self.options.since.max(Some(day));
        } else {
            out.push(missing(id, &part.node));
        }
    }

    fn ask(
        &mut self,
        (id, count): (SubscriptionId, &mut u64),
        (view, sessions): (&View, &Sessions),
        out: &mut Vec<Output>,
    ) {
        self.asked.retain(|task| view.task(task).is_some());
        let mut wanted: BTreeMap<NodeId, BTreeSet<TaskId>> = BTreeMap::new();
        for task in self.selected(view) {
            if let Some(node) = task.node.clone().filter(|_| !self.asked.contains(&task.id)) {
                wanted.entry(node).or_default().insert(task.id.clone());
            }
        }
        for (node, tasks) in wanted {
            let Some(session) = sessions.session_of(&node).cloned() else {
                if self.told.insert(node.clone()) {
                    out.push(missing(id, &node));
                }
                continue;
            };
            self.told.remove(&node);
            *count += 1;
            let name = format!("{session}-{count}");
            self.asked.extend(tasks.iter().cloned());
            let part = Part { node: node.clone(), session: session.clone(), tasks: tasks.clone() };
            self.parts.insert(name.clone(), part);
            out.push(Output::Logs(LogOutput::Expect {
                part: name.clone(),
                subscription: id,
                node: node.clone(),
                tasks: tasks.clone(),
            }));
            let options = self.options.clone();
            let request = LogRequest { subscription: name, tasks, options };
            out.push(Output::Send { node, session, message: SessionMessage::Logs(request) });
        }
    }

    /// The tasks that have, or had, a container.
    fn selected<'a>(&self, view: &'a View) -> Vec<&'a Task> {
        let tasks: Vec<&Task> = match &self.selector {
            LogSelector::Task(id) => view.task(id).into_iter().map(AsRef::as_ref).collect(),
            LogSelector::Service(id) => view.tasks_of_service(id).map(AsRef::as_ref).collect(),
        };
        let with_container = |task: &&Task| {
            task.status.container.as_ref().is_some_and(|container| !container.id.is_empty())
        };
        tasks.into_iter().filter(with_container).collect()
    }
}

/// Tells the client that a node's part is missing.
fn missing(subscription: SubscriptionId, node: &NodeId) -> Output {
    let fault = Fault::unavailable(format!(
        "warning: incomplete log stream. some logs could not be retrieved for the following \
         reasons: node {node} is not available"
    ));
    Output::Logs(LogOutput::Missing { subscription, fault })
}
