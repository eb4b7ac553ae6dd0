//! The world of one run: what happens next, and to whom.

use crate::consensus::{Consensus, Id};
use crate::context::{Context, Event, Happened};
use crate::history::{Detail, History};
use crate::invariant::{self, Invariant};
use crate::manager::{self, Manager, SessionState};
use crate::network::{Network, Way};
use crate::node::{Ills, Node};
use crate::random::Random;
use crate::script::{Script, Step};
use crate::user;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;
use store::View;
use types::NodeRole;

/// After the storm: machines come back, and users mend what they broke.
const MENDED: Duration = Duration::from_secs(20);
/// In which everything has to be as users want it.
const CALM_MAX: Duration = Duration::from_mins(4);
/// How long it has to stay so.
const STEADY: Duration = Duration::from_secs(10);
/// Between two looks.
const LOOK: Duration = Duration::from_secs(1);
/// Events of a run at most: one that has more goes round in circles.
const EVENTS_MAX: u64 = 3_000_000;

/// A rule that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub invariant: &'static str,
    pub why: String,
    pub at: Duration,
}

/// What came of a run.
#[derive(Debug)]
pub struct Outcome {
    pub failure: Option<Failure>,
    pub history: Vec<String>,
    /// How long it was, by the world's clock.
    pub time: Duration,
    pub events: u64,
}

#[derive(Debug)]
pub struct World {
    pub ctx: Context,
    /// By their machines.
    pub managers: BTreeMap<usize, Manager>,
    pub nodes: Vec<Node>,
    script: Script,
    random: Random,
    /// Since when everything is as it shall be.
    steady: Option<Duration>,
    calm_at: Option<Duration>,
}

/// Plays a script.
pub fn run(script: &Script, detail: Detail) -> Outcome {
    let mut world = World::new(script.clone(), detail);
    let mut invariants = invariant::all();
    let played = catch_unwind(AssertUnwindSafe(|| world.play(&mut invariants)));
    let failure = played.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        let why = text.unwrap_or_else(|| "without a word".to_owned());
        Some(Failure { invariant: "nothing panics", why, at: world.ctx.now })
    });
    if let Some(Failure { invariant, why, .. }) = &failure {
        world.ctx.tell(|| format!("BROKEN: {invariant}: {why}"));
    }
    Outcome {
        failure,
        time: world.ctx.now,
        events: world.ctx.events(),
        history: world.ctx.history.into_lines(),
    }
}

impl World {
    fn new(script: Script, detail: Detail) -> Self {
        let random = Random::new(script.seed ^ 0x00c0_ffee);
        let network = Network::new(script.noise, random.fork(1));
        let log = Consensus::new(random.fork(3));
        let managers = (0..script.managers).zip(raft::FIRST_MEMBER..);
        let manager = |(machine, id)| (machine, Manager::new(id, machine, random.fork(10 + id)));
        Self {
            ctx: Context::new((network, log), History::new(detail)),
            managers: managers.map(manager).collect(),
            nodes: Vec::new(),
            random,
            script,
            steady: None,
            calm_at: None,
        }
    }

    pub fn node_of(&self, id: &types::NodeId) -> Option<&Node> {
        self.nodes.iter().find(|node| node.id == *id)
    }

    /// What is committed.
    pub fn view(&self) -> &View {
        self.ctx.log.newest()
    }

    /// The manager that leads in the newest term, once it does.
    pub fn leader(&self) -> Option<&Manager> {
        let id = self.ctx.log.leader()?;
        let manager = self.managers.get(&self.ctx.log.machine(id));
        manager.filter(|manager| manager.id == id && manager.leads().is_some())
    }

    /// The machine of one of the managers.
    pub fn manager_of(&self, which: usize) -> Option<usize> {
        self.managers.keys().nth(which.checked_rem(self.managers.len())?).copied()
    }

    /// How a node's session with the leader is, if it has one.
    pub fn session_of(&self, node: usize) -> Option<SessionState> {
        self.leader()?.session_of(node)
    }

    fn has_led(&mut self, then: impl FnOnce(&mut Manager, &mut Context)) {
        let machine = self.leader().map(|leader| leader.machine);
        if let Some(leader) = machine.and_then(|machine| self.managers.get_mut(&machine)) {
            then(leader, &mut self.ctx);
        }
    }

    fn play(&mut self, invariants: &mut [Box<dyn Invariant>]) -> Option<Failure> {
        self.begin();
        for (index, item) in self.script.items.iter().enumerate() {
            self.ctx.at(item.at, Event::Step(index));
        }
        self.ctx.at(self.script.storm, Event::Calm);
        while let Some(event) = self.ctx.advance() {
            self.ctx.trace(|| format!("{event:?}"));
            let mut verdict = Ok(());
            let mut ends = false;
            match event {
                Event::Look => match self.look(invariants) {
                    Ok(is_over) => ends = is_over,
                    Err(failure) => verdict = Err(failure),
                },
                other => self.handle(other),
            }
            verdict = verdict.and_then(|()| self.judge(invariants));
            if let Err((invariant, why)) = verdict {
                return Some(Failure { invariant, why, at: self.ctx.now });
            }
            if ends {
                return None;
            }
            if self.ctx.events() > EVENTS_MAX {
                let why = format!("more than {EVENTS_MAX} events");
                return Some(Failure { invariant: "it comes to rest", why, at: self.ctx.now });
            }
        }
        None
    }

    fn begin(&mut self) {
        let members: Vec<_> = self.managers.values().map(|it| (it.id, it.machine)).collect();
        let first = manager::first(members.len(), 0);
        self.ctx.log(|log, _, _| log.found(&members, &first));
        for manager in self.managers.values_mut() {
            manager.start(&mut self.ctx);
        }
        for number in 0..self.script.nodes {
            self.add_node(number);
        }
        self.ctx.at(LOOK, Event::Look);
    }

    fn add_node(&mut self, number: usize) {
        let random = self.random.fork(100 + number as u64);
        // Whichever manager it was that a machine was told.
        let own = self.managers.get(&number).map(|manager| manager.id);
        let joined_by = own.map_or(self.manager_of(number), |_| Some(0)).unwrap_or(0);
        let mut node = Node::new(number, (joined_by, own), random);
        if own.is_none() {
            self.ctx.at(self.ctx.now, Event::Joins { node: number });
        }
        node.start(&mut self.ctx);
        self.nodes.push(node);
    }

    fn handle(&mut self, event: Event) {
        let ctx = &mut self.ctx;
        match event {
            Event::Step(index) => self.step(index),
            Event::Over(index) => {
                if !self.ctx.calm {
                    self.over(index);
                }
            }
            Event::Calm => self.calm(),
            Event::Look => {}
            Event::Deliver(packet) => match packet.way {
                Way::Up => match self.managers.get_mut(&packet.manager).filter(|it| it.is_up()) {
                    Some(manager) => manager.receive(packet, ctx),
                    None => ctx.sever(packet.connection, Duration::from_millis(2)),
                },
                Way::Down => {
                    if let Some(node) = self.nodes.get_mut(packet.node) {
                        node.receive(packet, ctx);
                    }
                }
            },
            Event::Broken { node, cut } => {
                if ctx.network.is_cut(node, cut) {
                    ctx.sever_all(ctx.network.of_machine(node), Duration::from_secs(1));
                }
            }
            Event::Log(due) => {
                ctx.log(|log, wires, now| log.handle(due, wires, now));
                self.look_at_log();
            }
            Event::Asked(asked) => self.ask(asked),
            Event::Ordered { asked, order } => self.take_order(asked, order),
            Event::Joins { node } => self.join(node),
            Event::Role { node, manager } => self.take_role(node, manager),
            Event::Manager(id, life, due) => {
                let manager = self.managers.get_mut(&ctx.log.machine(id));
                if let Some(manager) = manager.filter(|it| it.id == id) {
                    manager.handle(life, due, ctx);
                }
            }
            Event::Node(node, life, due) => self.nodes[node].handle(life, due, ctx),
            Event::Machine(node, life, due) => self.nodes[node].machine(life, due, ctx),
        }
    }

    fn step(&mut self, index: usize) {
        let step = self.script.items[index].step.clone();
        match step {
            Step::User { operation, asked } => self.user(operation, asked),
            Step::Fault(fault) => {
                self.ctx.tell(|| format!("fault: {fault:?}"));
                self.fault(&fault, true);
                if let Some(lasts) = fault.lasts() {
                    self.ctx.after(lasts, Event::Over(index));
                }
            }
        }
    }

    fn over(&mut self, index: usize) {
        if let Step::Fault(fault) = self.script.items[index].step.clone() {
            self.ctx.tell(|| format!("over: {fault:?}"));
            self.fault(&fault, false);
        }
    }

    /// The log may have gone on, or say something else of who leads.
    pub(crate) fn look_at_log(&mut self) {
        for manager in self.managers.values_mut() {
            manager.look(&mut self.ctx);
        }
    }

    fn user(&mut self, operation: user::Operation, asked: usize) {
        match operation {
            user::Operation::Join => {
                if self.leader().is_some() && self.nodes.len() < 60 {
                    let number = self.nodes.len();
                    self.ctx.tell(|| format!("user: node {number} joins"));
                    self.add_node(number);
                }
            }
            user::Operation::Leave(node) => {
                // Managers stay, and who is to be one; and node 0, which takes everything in the end.
                let view = self.ctx.log.newest();
                let is_worker = |it: &&mut Node| {
                    let stored = view.node(&it.id);
                    it.number > 0
                        && !it.is_manager()
                        && stored.is_none_or(|it| it.role == NodeRole::Worker)
                };
                if let Some(node) = self.nodes.get_mut(node).filter(is_worker) {
                    let number = node.number;
                    self.ctx.tell(|| format!("user: node {number} leaves"));
                    node.leave(&mut self.ctx);
                }
            }
            user::Operation::RemoveNode(0, _) => {}
            other => self.begin_to_ask(other, asked),
        }
    }

    /// A node has a manager's certificate and a number, or a worker's certificate.
    fn take_role(&mut self, node: usize, id: Option<Id>) {
        if let Some(mut old) = self.managers.remove(&node) {
            old.die(&mut self.ctx);
            self.ctx.log.forget(old.id);
        }
        let Some(id) = id else { return };
        self.ctx.log.join(id, node);
        let mut manager = Manager::new(id, node, self.random.fork(10 + id));
        if self.nodes[node].is_up() {
            manager.start(&mut self.ctx);
        }
        self.managers.insert(node, manager);
    }

    /// A machine shows a token; it does so until a manager leads.
    fn join(&mut self, node: usize) {
        if self.leader().is_none() {
            return self.ctx.after(Duration::from_millis(200), Event::Joins { node });
        }
        self.has_led(|leader, ctx| leader.join(node, ctx));
    }

    /// Nothing breaks any more.
    fn calm(&mut self) {
        self.ctx.tell(|| "calm".to_owned());
        self.ctx.calm = true;
        self.calm_at = Some(self.ctx.now);
        self.ctx.log.mend_disks();
        for node in 0..self.nodes.len() {
            let due = self.ctx.network.heal(self.ctx.now, node);
            self.ctx.deliver(due);
            self.nodes[node].ills = Ills::default();
        }
        for manager in self.managers.values_mut() {
            manager.start(&mut self.ctx);
        }
        for node in &mut self.nodes {
            node.start(&mut self.ctx);
        }
    }

    /// Looks whether all is as it shall be; says whether the run is over.
    fn look(&mut self, invariants: &mut [Box<dyn Invariant>]) -> Result<bool, Broken> {
        for invariant in invariants.iter_mut() {
            let name = invariant.name();
            invariant.look(self).map_err(|why| (name, why))?;
        }
        self.ctx.after(LOOK, Event::Look);
        let Some(calm_at) = self.calm_at else { return Ok(false) };
        let (now, mended) = (self.ctx.now, calm_at + MENDED);
        if now < mended {
            return Ok(false);
        }
        self.has_led(Manager::mend);
        // Of a node that could tell nobody, managers are told by hand.
        let is_known = |node: &std::sync::Arc<types::Node>| !node.has_left();
        let untold = self
            .nodes
            .iter()
            .filter(|node| node.is_gone && self.view().node(&node.id).is_some_and(is_known));
        for number in untold.map(|node| node.number).collect::<Vec<_>>() {
            self.begin_to_ask(user::Operation::RemoveNode(number, true), 0);
        }
        if now < mended + LOOK {
            for node in &mut self.nodes {
                if node.wants_to_leave && !node.is_gone {
                    node.leave(&mut self.ctx);
                }
            }
            return Ok(false);
        }
        for invariant in invariants.iter_mut() {
            if let Err(why) = invariant.settled(self) {
                self.steady = None;
                if now > mended + CALM_MAX {
                    return Err((invariant.name(), why));
                }
                return Ok(false);
            }
        }
        let steady = *self.steady.get_or_insert(now);
        Ok(now >= steady + STEADY)
    }

    /// Asks all rules about what has just happened.
    fn judge(&mut self, invariants: &mut [Box<dyn Invariant>]) -> Result<(), Broken> {
        if self.ctx.happened.is_empty() {
            return Ok(());
        }
        let happened = std::mem::take(&mut self.ctx.happened);
        for what in &happened {
            if let Happened::Stored { before } = what {
                self.tell_changes(before);
            }
            for invariant in invariants.iter_mut() {
                let name = invariant.name();
                invariant.happened(self, what).map_err(|why| (name, why))?;
            }
        }
        Ok(())
    }

    /// Tells people what has changed in the store.
    fn tell_changes(&mut self, before: &View) {
        if self.ctx.history.is_told() {
            for line in invariant::changes(before, self.ctx.log.newest()) {
                self.ctx.tell(|| line);
            }
        }
    }
}

type Broken = (&'static str, String);
