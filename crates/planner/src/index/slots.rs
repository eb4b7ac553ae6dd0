//! The tasks of services by their slots.

use crate::orchestrator::slot::{SlotTasks, Slots, slot_of};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use types::{ServiceId, Slot, Task};

/// The slots of each service that has tasks.
#[derive(Debug, Default)]
pub(crate) struct AllSlots(BTreeMap<ServiceId, ServiceSlots>);

/// The slots of a service that have a task of any kind.
#[derive(Debug, Default)]
pub(crate) struct ServiceSlots {
    /// Slots of which nothing is to be decided before something changes: see
    /// [`SlotTasks::is_quiet`].
    quiet: Slots,
    busy: Slots,
}

/// What a plan looks at of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// These slots, and those that are busy.
    Slots(BTreeSet<Slot>),
    All,
}

impl Default for Look {
    /// The slots that are busy.
    fn default() -> Self {
        Self::Slots(BTreeSet::new())
    }
}

impl Look {
    /// Looks at a slot, too.
    pub(super) fn at(&mut self, slot: Slot) {
        match self {
            Self::Slots(slots) => {
                slots.insert(slot);
            }
            Self::All => {}
        }
    }
}

impl AllSlots {
    /// Follows a task.
    pub(super) fn change(&mut self, (was, is): (Option<&Arc<Task>>, Option<&Arc<Task>>)) {
        if let Some(was) = was {
            let slots = self.0.entry(was.service.clone()).or_default();
            let slot = slot_of(was);
            let mut tasks = slots.take(&slot);
            tasks.remove(&was.id);
            slots.keep(slot, tasks);
        }
        if let Some(is) = is {
            let slots = self.0.entry(is.service.clone()).or_default();
            let slot = slot_of(is);
            let mut tasks = slots.take(&slot);
            tasks.insert(Arc::clone(is));
            slots.keep(slot, tasks);
        }
    }

    /// All slots of a service, in no order.
    pub(crate) fn of(&self, service: &ServiceId) -> impl Iterator<Item = (&Slot, &SlotTasks)> {
        let slots = self.0.get(service).into_iter();
        slots.flat_map(|slots| slots.quiet.iter().chain(&slots.busy))
    }

    /// Takes out the slots of a service, which is put back by [`AllSlots::put`].
    pub(crate) fn take(&mut self, service: &ServiceId) -> ServiceSlots {
        self.0.remove(service).unwrap_or_default()
    }

    pub(crate) fn put(&mut self, service: &ServiceId, slots: ServiceSlots) {
        if !slots.quiet.is_empty() || !slots.busy.is_empty() {
            self.0.insert(service.clone(), slots);
        }
    }
}

impl ServiceSlots {
    /// Takes out what is to be looked at. A slot that was named is there also where it has no task.
    pub(crate) fn look(&mut self, look: &Look) -> Slots {
        let mut slots = std::mem::take(&mut self.busy);
        match look {
            Look::Slots(named) => {
                for slot in named {
                    let quiet = || self.quiet.remove(slot).unwrap_or_default();
                    slots.entry(slot.clone()).or_insert_with(quiet);
                }
            }
            Look::All => slots.append(&mut self.quiet),
        }
        slots
    }

    /// How many slots were not taken out. Each has a task that is wanted.
    pub(crate) fn others(&self) -> usize {
        self.quiet.len()
    }

    /// Takes back what was looked at.
    pub(crate) fn keep_all(&mut self, slots: Slots) {
        for (slot, tasks) in slots {
            self.keep(slot, tasks);
        }
    }

    fn take(&mut self, slot: &Slot) -> SlotTasks {
        self.quiet.remove(slot).or_else(|| self.busy.remove(slot)).unwrap_or_default()
    }

    fn keep(&mut self, slot: Slot, tasks: SlotTasks) {
        if tasks.is_quiet() {
            self.quiet.insert(slot, tasks);
        } else if !tasks.is_empty() {
            self.busy.insert(slot, tasks);
        }
    }
}
