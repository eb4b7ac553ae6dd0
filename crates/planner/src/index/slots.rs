//! The tasks of services by their slots.

use super::{Standing, Standings};
use crate::Planning;
use crate::orchestrator::slot::{SlotTasks, Slots, slot_of};
use std::collections::BTreeMap;
use std::sync::Arc;
use types::{
    Service, ServiceId, ServiceMode, ServiceSpec, Slot, Task, TaskId, Timestamp, UpdateStatus,
};

/// The slots of each service that is there or has tasks.
#[derive(Debug, Default)]
pub(crate) struct AllSlots(BTreeMap<ServiceId, ServiceSlots>);

/// The slots of a service that have a task of any kind.
#[derive(Debug, Default)]
pub(crate) struct ServiceSlots {
    /// Slots of which nothing is to be decided before something changes or their time comes.
    calm: Slots,
    /// What is known of those.
    standings: Standings,
    /// The others: each is to be looked at. One that was named is here also where it has no task.
    stirred: Slots,
    /// All of them were stirred, and those that have no task are not among them yet.
    is_whole: bool,
    basis: Basis,
    /// How many slots were taken out, for tests that count.
    #[cfg(test)]
    looks: usize,
}

/// What all slots of a service go by: where that changes, all of them are looked at.
#[derive(Clone, Debug, Default)]
pub(crate) struct Basis {
    service: Option<Arc<Service>>,
    has_mesh: bool,
    fair_from: Timestamp,
}

impl Basis {
    pub(crate) fn of(planning: &Planning<'_>, service: &ServiceId) -> Self {
        let service = planning.tx.service(service).cloned();
        let has_mesh = planning.tx.ingress_network().is_some();
        Self { service, has_mesh, fair_from: planning.fair_from }
    }

    fn is_same(&self, other: &Self) -> bool {
        let service = match (&self.service, &other.service) {
            (None, None) => true,
            (Some(one), Some(two)) => Arc::ptr_eq(one, two) || are_same(one, two),
            (None, Some(_)) | (Some(_), None) => false,
        };
        service && (self.has_mesh, self.fair_from) == (other.has_mesh, other.fair_from)
    }
}

/// How many slots there are to be, which of them an update has lost, and what it says, is no matter
/// of the others. One that is over and lost none is as none.
fn are_same(one: &Service, two: &Service) -> bool {
    let matters = |it: &&UpdateStatus| it.completed_at.is_none() || !it.failed.is_empty();
    let update = |service: &Service| {
        service.update.as_ref().filter(matters).map(|it| (it.state, it.started_at))
    };
    let mode = match (one.spec.mode, two.spec.mode) {
        (ServiceMode::Replicated { .. }, mode @ ServiceMode::Replicated { .. }) | (mode, _) => mode,
    };
    let job = |service: &Service| {
        service.job.as_ref().map(|job| (job.iteration, job.last_execution.is_some()))
    };
    one.ports == two.ports
        && job(one) == job(two)
        && update(one) == update(two)
        && ServiceSpec { mode, ..one.spec.clone() } == two.spec
}

impl AllSlots {
    /// Follows a task. Its slot is stirred, but where the task `is_as_before`.
    pub(super) fn change(
        &mut self,
        (was, is): (Option<&Arc<Task>>, Option<&Arc<Task>>),
        is_as_before: bool,
    ) {
        let place = |task: &Task| (task.service.clone(), slot_of(task));
        let (left, entered) = (was.map(|it| place(it)), is.map(|it| place(it)));
        let stays = left == entered;
        if let (Some((service, slot)), Some(was)) = (&left, was)
            && let Some(slots) = self.0.get_mut(service)
        {
            let is = is.filter(|_| stays);
            slots.change(slot, (Some(&was.id), is), is_as_before);
        }
        if let (Some((service, slot)), Some(is)) = (entered, is)
            && (!stays || !self.0.contains_key(&service))
        {
            self.0.entry(service).or_default().change(&slot, (None, Some(is)), is_as_before);
        }
    }

    /// A slot of a service is to be looked at.
    pub(super) fn stir(&mut self, service: &ServiceId, slot: &Slot) {
        self.0.entry(service.clone()).or_default().stir(slot);
    }

    /// All slots of a service are to be looked at.
    pub(super) fn stir_all(&mut self, service: &ServiceId) {
        if let Some(slots) = self.0.get_mut(service) {
            slots.stir_all();
        }
    }

    /// Takes out the slots of a service, which is put back by [`AllSlots::put`].
    pub(crate) fn take(&mut self, service: &ServiceId) -> ServiceSlots {
        self.0.remove(service).unwrap_or_default()
    }

    pub(crate) fn put(&mut self, service: &ServiceId, slots: ServiceSlots) {
        let is_empty = slots.calm.is_empty() && slots.stirred.is_empty();
        if !is_empty || slots.basis.service.is_some() {
            self.0.insert(service.clone(), slots);
        }
    }

    pub(crate) fn of(&self, service: &ServiceId) -> Option<&ServiceSlots> {
        self.0.get(service)
    }

    /// How many slots were taken out since this was asked last.
    #[cfg(test)]
    pub(crate) fn take_looks(&mut self) -> usize {
        self.0.values_mut().map(|slots| std::mem::take(&mut slots.looks)).sum()
    }
}

impl ServiceSlots {
    /// Stirs all slots where what they go by has changed.
    pub(crate) fn follow(&mut self, basis: Basis) {
        if !self.basis.is_same(&basis) {
            self.stir_all();
        }
        self.basis = basis;
    }

    /// Says whether slots that have no task are to be looked at, too; once.
    pub(crate) fn take_whole(&mut self) -> bool {
        std::mem::take(&mut self.is_whole)
    }

    /// Notes what the slots go by that were looked at: to look at them changed it for no other.
    pub(crate) fn looked_at(&mut self, basis: Basis) {
        self.basis = basis;
    }

    pub(crate) fn stir(&mut self, slot: &Slot) {
        if self.calm.contains_key(slot) {
            let tasks = self.take_calm(slot);
            self.stirred.insert(slot.clone(), tasks);
        } else {
            self.stirred.entry(slot.clone()).or_default();
        }
    }

    fn stir_all(&mut self) {
        self.is_whole = true;
        self.standings = Standings::default();
        self.stirred.append(&mut self.calm);
    }

    /// Stirs the slots whose time has come, and those that the update may have lost by now.
    pub(crate) fn stir_due(&mut self, now: Timestamp) {
        while let Some(slot) = self.standings.due(now).cloned() {
            self.stir(&slot);
        }
    }

    /// Takes out a slot that is to be looked at.
    pub(crate) fn next_stirred(&mut self) -> Option<(Slot, SlotTasks)> {
        let (slot, mut tasks) = self.stirred.pop_first()?;
        #[cfg(test)]
        (self.looks += 1);
        tasks.standing = Standing::default();
        Some((slot, tasks))
    }

    /// Takes out a slot that was not to be looked at; one without a task where it has none.
    pub(crate) fn take_calm(&mut self, slot: &Slot) -> SlotTasks {
        let mut tasks = self.calm.remove(slot).unwrap_or_default();
        #[cfg(test)]
        (self.looks += 1);
        self.standings.take(slot, &tasks);
        tasks.standing = Standing::default();
        tasks
    }

    /// Says anew where slots stand in which an update is under way.
    pub(crate) fn edit_under_way(&mut self, edit: impl Fn(&Slot, &mut SlotTasks)) {
        for slot in self.standings.under_way() {
            if let Some(tasks) = self.calm.get_mut(&slot) {
                self.standings.take(&slot, tasks);
                edit(&slot, tasks);
                self.standings.add(&slot, tasks);
            }
        }
    }

    pub(crate) fn calm(&self) -> &Slots {
        &self.calm
    }

    pub(crate) fn stirred(&self) -> &Slots {
        &self.stirred
    }

    pub(crate) fn standings(&self) -> &Standings {
        &self.standings
    }

    /// Takes back a slot that was looked at.
    pub(crate) fn keep(&mut self, slot: Slot, tasks: SlotTasks, is_calm: bool) {
        if tasks.is_empty() {
            return;
        }
        if is_calm {
            self.standings.add(&slot, &tasks);
            self.calm.insert(slot, tasks);
        } else {
            self.stirred.insert(slot, tasks);
        }
    }

    /// Puts a task of a slot in the place of another one.
    fn change(
        &mut self,
        slot: &Slot,
        (was, is): (Option<&TaskId>, Option<&Arc<Task>>),
        is_as_before: bool,
    ) {
        let put = |tasks: &mut SlotTasks| {
            if let Some(was) = was {
                tasks.remove(was);
            }
            if let Some(is) = is {
                tasks.insert(Arc::clone(is));
            }
        };
        if let Some(tasks) = self.calm.get_mut(slot) {
            if is_as_before {
                put(tasks);
            }
            // Whoever decided this of the slot has it already.
            if is_as_before || is.is_some_and(|is| tasks.has(is)) {
                return;
            }
            self.stir(slot);
        } else if is.is_some() {
            self.stirred.entry(slot.clone()).or_default();
        }
        // One that this planner forgot is in none.
        if let Some(tasks) = self.stirred.get_mut(slot) {
            put(tasks);
        }
    }
}
