//! What managers say.

use super::{LOGS, Order, Output, Session, URGENT_PAUSE, Unacknowledged, Useless};
use crate::Now;
use crate::files::{Files, of_container};
use crate::worker::{Assigned, Event};
use dataplane::{Identity, News};
use std::collections::BTreeMap;
use types::{Config, ContainerSpec, Secret, SharedSpec, Task, TaskId};
use wire::{Assignments, Difference, LogRequest, Materials, Parts, SessionMessage, Welcome};

impl Session {
    pub(super) fn message(
        &mut self,
        message: SessionMessage,
        now: Now,
        outputs: &mut Vec<Output>,
    ) -> Result<(), String> {
        match message {
            SessionMessage::Welcome(welcome) => self.welcome(welcome, now, outputs),
            SessionMessage::Whole(_)
            | SessionMessage::Difference(_)
            | SessionMessage::Logs(_)
            | SessionMessage::LogsDone(_)
                if self.id.is_none() =>
            {
                Err("the manager did not say how the session begins".to_owned())
            }
            SessionMessage::Whole(_) | SessionMessage::Difference(_) if self.is_parting => Ok(()),
            SessionMessage::Whole(whole) => {
                self.whole(whole, outputs);
                Ok(())
            }
            SessionMessage::Difference(difference) => self.difference(difference, outputs),
            SessionMessage::Logs(request) => {
                self.log(request, outputs);
                Ok(())
            }
            SessionMessage::LogsDone(subscription) => {
                if self.logs.remove(&subscription) {
                    outputs.push(Output::StopLog(subscription));
                }
                Ok(())
            }
        }
    }

    fn welcome(
        &mut self,
        welcome: Welcome,
        now: Now,
        outputs: &mut Vec<Output>,
    ) -> Result<(), String> {
        if self.id.is_some() {
            return Err("the manager began the session twice".to_owned());
        }
        let Welcome { release, session, node, heartbeat_millis, managers, .. } = welcome;
        let (data_path_port, role) = (welcome.data_path_port, welcome.role);
        if let Err(fault) = wire::Release::own().check_manager(&release) {
            self.useless = Some(Useless::Refused);
            return Err(fault.message);
        }
        self.id = Some(session);
        self.beat_after(heartbeat_millis, now);
        self.renewal_look_at = now.uptime;
        self.new_role = role.filter(|role| *role != self.lasting.role);
        if self.new_role.is_some() {
            self.renewal_pause = URGENT_PAUSE;
            (self.lasting.renew_at, self.lasting.renew_after) = (now.time, now.uptime);
        }
        self.managers.clone_from(&managers);
        outputs.push(Output::Order(Order::Identify(Identity {
            node,
            address: self.address,
            data_path_port,
        })));
        outputs.push(Output::Order(Order::Begun { managers, data_path_port }));
        Ok(())
    }

    fn whole(&mut self, mut whole: Assignments, outputs: &mut Vec<Output>) {
        self.materials = Materials::take_from(&mut whole);
        let Assignments { version, tasks, withdrawn, knowledge, .. } = whole;
        let tasks = self.assigned(tasks);
        self.learn(News::Whole(knowledge), outputs);
        self.has(version);
        outputs.push(Output::Order(Order::Connected));
        outputs.push(Output::Order(Order::Work(Event::Whole { tasks, withdrawn })));
    }

    fn difference(&mut self, mut it: Difference, outputs: &mut Vec<Output>) -> Result<(), String> {
        if self.version != Some(it.from) {
            return Err(format!("a difference to version {} came too early", it.from));
        }
        self.materials.apply(&mut it);
        let Difference { version, tasks, removed_tasks: removed, withdrawn, .. } = it;
        let tasks = self.assigned(tasks);
        if !it.knowledge.is_empty() {
            self.learn(News::Difference(it.knowledge), outputs);
        }
        self.has(version);
        if !tasks.is_empty() || !removed.is_empty() || withdrawn.is_some() {
            outputs.push(Output::Order(Order::Work(Event::Changed { tasks, removed, withdrawn })));
        }
        Ok(())
    }

    /// Tasks with all that they are made from, and their files.
    fn assigned(&self, tasks: Parts<TaskId, Task>) -> Assigned {
        let (tasks, mut others) = tasks.divide();
        let (mut understood, mut files) = (BTreeMap::new(), BTreeMap::new());
        for (id, mut task) in tasks {
            match self.spec(&task.spec) {
                Ok(spec) => {
                    task.spec = spec;
                    let known = self.files(&task.spec.container);
                    if !known.is_empty() {
                        files.insert(id.clone(), known);
                    }
                    understood.insert(id, task);
                }
                Err(why) => drop(others.insert(id, why)),
            }
        }
        Assigned { understood, others, files }
    }

    fn files(&self, container: &ContainerSpec) -> Files {
        Files {
            secrets: of_container::<Secret>(&self.materials.secrets, container),
            configs: of_container::<Config>(&self.materials.configs, container),
        }
    }

    /// The spec that a task has or names.
    fn spec(&self, spec: &SharedSpec) -> Result<SharedSpec, String> {
        if spec.is_known() {
            return Ok(spec.clone());
        }
        self.materials.spec(spec.id()).cloned().map_err(ToOwned::to_owned)
    }

    fn learn(&mut self, news: News, outputs: &mut Vec<Output>) {
        self.lasting.learned += 1;
        outputs.push(Output::Order(Order::Learn { news, version: self.lasting.learned }));
    }

    fn has(&mut self, version: u64) {
        self.version = Some(version);
        self.unacknowledged.push_back(Unacknowledged { version, needs: self.lasting.learned });
    }

    fn log(&mut self, request: LogRequest, outputs: &mut Vec<Output>) {
        if self.logs.len() < LOGS || self.logs.contains(&request.subscription) {
            self.logs.insert(request.subscription.clone());
            outputs.push(Output::PublishLog(request));
        } else {
            let error = format!("this node sends {LOGS} logs already");
            outputs.push(Output::RefuseLog { subscription: request.subscription, error });
        }
    }
}
