//! A session among whatever may happen, in whatever order.

use super::*;
use proptest::prelude::*;

/// What a manager, a data plane and a worker may say.
#[derive(Clone, Debug)]
enum Chance {
    Whole,
    /// With something new of networks or not.
    Difference(bool),
    CarriedOut,
    /// The data plane catches up by so much.
    Applied(u64),
    Status(u8),
    Reported,
    /// The manager cannot write what was reported; time passes.
    NotReported,
    Acknowledged,
}

fn chance() -> impl Strategy<Value = Chance> {
    prop_oneof![
        1 => Just(Chance::Whole),
        4 => any::<bool>().prop_map(Chance::Difference),
        4 => Just(Chance::CarriedOut),
        4 => (0..4_u64).prop_map(Chance::Applied),
        2 => (0..4_u8).prop_map(Chance::Status),
        2 => Just(Chance::Reported),
        1 => Just(Chance::NotReported),
        4 => Just(Chance::Acknowledged),
    ]
}

/// A data plane and a manager, by the plain definition of what they hold.
struct World {
    story: Story,
    /// What the manager said last.
    version: u64,
    /// What the data plane was told last, and what it holds.
    learned: u64,
    applied: u64,
    learning: Vec<u64>,
    /// By version of the manager, what the data plane must hold for it.
    needs: BTreeMap<u64, u64>,
    acknowledged: u64,
    acknowledging: bool,
    reporting: bool,
    given: BTreeSet<TaskId>,
    /// What the report under way says.
    saying: BTreeSet<TaskId>,
    told: BTreeSet<TaskId>,
}

impl World {
    /// The data plane holds something of former times.
    fn new(applied: u64) -> Self {
        let mut world = Self {
            story: Story::new(),
            version: 0,
            learned: 0,
            applied,
            learning: Vec::new(),
            needs: BTreeMap::new(),
            acknowledged: 0,
            acknowledging: false,
            reporting: false,
            given: BTreeSet::new(),
            saying: BTreeSet::new(),
            told: BTreeSet::new(),
        };
        world.handle(Event::Applied(applied));
        let welcome = world.story.event("welcome");
        world.handle(welcome);
        world
    }

    fn happen(&mut self, chance: &Chance) {
        match chance {
            Chance::Whole | Chance::Difference(_) if !self.story.session.takes_messages() => {}
            Chance::Whole => {
                self.says(true);
                let whole = Assignments { version: self.version, ..Assignments::default() };
                self.handle(Event::Message(SessionMessage::Whole(whole)));
            }
            Chance::Difference(_) if self.version == 0 => {}
            Chance::Difference(news) => {
                let (from, version) = (self.version, self.version + 1);
                let mut difference = Difference { from, version, ..Difference::default() };
                if *news {
                    difference.knowledge.removed_networks.insert("net".into());
                }
                self.says(*news);
                self.handle(Event::Message(SessionMessage::Difference(difference)));
            }
            Chance::CarriedOut => self.carry_out(),
            Chance::Applied(by) => {
                if self.learned != 0 {
                    self.applied = (self.applied + by).min(self.learned.max(self.applied));
                }
                self.handle(Event::Applied(self.applied));
            }
            Chance::Status(number) => {
                let task = TaskId::from(format!("t{number}"));
                self.given.insert(task.clone());
                self.handle(Event::Statuses([(task, TaskStatus::default())].into()));
            }
            Chance::Reported if self.reporting => {
                self.reporting = false;
                self.told.append(&mut self.saying);
                self.handle(Event::Answered(Answer::Report(Ok(()))));
            }
            Chance::NotReported if self.reporting => {
                self.reporting = false;
                self.saying.clear();
                let busy = Fault::unavailable("busy");
                self.handle(Event::Answered(Answer::Report(Err(busy))));
                self.story.now.uptime += REPORT_PAUSE_MAX;
            }
            Chance::Acknowledged if self.acknowledging => {
                self.acknowledging = false;
                self.handle(Event::Answered(Answer::Acknowledge(Ok(()))));
            }
            Chance::Reported | Chance::NotReported | Chance::Acknowledged => {}
        }
    }

    /// The manager says another version.
    fn says(&mut self, is_news: bool) {
        let before = self.needs.get(&self.version).copied().unwrap_or(0);
        self.version += 1;
        self.needs.insert(self.version, before + u64::from(is_news));
    }

    /// As the data plane does: what was held of former times says nothing of what it learns.
    fn carry_out(&mut self) {
        if self.story.session.takes_messages() {
            return;
        }
        for version in std::mem::take(&mut self.learning) {
            self.learned = version;
            if version <= self.applied {
                self.applied = version - 1;
            }
        }
        self.handle(Event::CarriedOut { applied: self.applied });
    }

    fn handle(&mut self, event: Event) {
        for output in self.story.session.handle(event, self.story.now) {
            match output {
                Output::Order(Order::Learn { version, .. }) => self.learning.push(version),
                Output::Call(Call::Acknowledge(it)) => {
                    assert!(!self.acknowledging && self.acknowledged < it.version);
                    let needs = self.needs[&it.version];
                    assert!(needs <= self.learned && needs <= self.applied, "not held yet");
                    (self.acknowledging, self.acknowledged) = (true, it.version);
                }
                Output::Call(Call::Report(report)) => {
                    assert!(!self.reporting && self.version > 0);
                    self.reporting = true;
                    self.saying = report.statuses.into_keys().collect();
                }
                Output::Close(reason) => panic!("closed: {reason}"),
                Output::Order(_)
                | Output::Call(Call::Heartbeat { .. } | Call::Renew | Call::Trust(_))
                | Output::PublishLog(_)
                | Output::Managers(_)
                | Output::RefuseLog { .. }
                | Output::StopLog(_) => {}
            }
        }
    }
}

proptest! {
    /// Whatever happens in whatever order: what is acknowledged is held, versions rise, one call of
    /// a kind is under way, no status is lost, and what is held is acknowledged in the end.
    #[test]
    fn what_is_promised_holds_in_any_order(
        chances in proptest::collection::vec(chance(), 0..60),
        applied in 0..20_u64,
    ) {
        let mut world = World::new(applied);
        for chance in &chances {
            world.happen(chance);
        }
        world.happen(&Chance::CarriedOut);
        world.happen(&Chance::Acknowledged);
        let held = world.needs.iter().filter(|(_, needs)| **needs <= world.applied);
        prop_assert_eq!(world.acknowledged, held.map(|(version, _)| *version).max().unwrap_or(0));
        world.told.extend(world.story.session.end().statuses.into_keys());
        prop_assert_eq!(world.told, world.given);
    }
}
