//! The world of one run: what happens next, and to whom.

use crate::context::{Context, Event, Happened};
use crate::fault::Fault;
use crate::history::{Detail, History};
use crate::invariant::{self, Invariant};
use crate::manager::Manager;
use crate::network::{KEEP_ALIVE, Network, Way};
use crate::node::{Ills, Node};
use crate::random::Random;
use crate::script::{Script, Step};
use crate::user;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

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
    pub manager: Manager,
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
        Self {
            ctx: Context::new(network, History::new(detail)),
            manager: Manager::new(random.fork(2)),
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
        self.manager.found(&mut self.ctx);
        for number in 0..self.script.nodes {
            self.add_node(number);
        }
        self.ctx.at(LOOK, Event::Look);
    }

    fn add_node(&mut self, number: usize) {
        let random = self.random.fork(100 + number as u64);
        let mut node = Node::new(number, random);
        if number > 0 {
            self.manager.join(number, &mut self.ctx);
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
                Way::Up if self.manager.is_up() => self.manager.receive(packet, ctx),
                Way::Up => ctx.sever(packet.connection, Duration::from_millis(2)),
                Way::Down => {
                    if let Some(node) = self.nodes.get_mut(packet.node) {
                        node.receive(packet, ctx);
                    }
                }
            },
            Event::Broken { node, cut } => {
                if ctx.network.is_cut(node, cut) {
                    ctx.sever_node(node, Duration::from_secs(1));
                }
            }
            Event::Manager(life, due) => self.manager.handle(life, due, ctx),
            Event::Node(node, life, due) => self.nodes[node].handle(life, due, ctx),
            Event::Machine(node, life, due) => self.nodes[node].machine(life, due, ctx),
        }
    }

    fn step(&mut self, index: usize) {
        let step = self.script.items[index].step.clone();
        match step {
            Step::User(operation) => self.user(operation),
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

    /// Begins or ends a fault.
    fn fault(&mut self, fault: &Fault, begins: bool) {
        match *fault {
            Fault::DaemonDies { node, .. } => self.daemon_dies(node, begins),
            Fault::PowerFails { node, .. } => {
                if begins {
                    self.nodes[node].lose_power(&mut self.ctx);
                }
                self.daemon_dies(node, begins);
            }
            // The manager and its own node are one machine.
            Fault::Cut { node: 0, .. } => {}
            Fault::Cut { node, up, down, .. } => self.cut(node, (up, down), begins),
            Fault::Reset { node } => self.ctx.sever_node(node, Duration::from_millis(200)),
            Fault::Clock { node, seconds } => {
                let skew = match node {
                    Some(node) => &mut self.nodes[node].skew,
                    None => &mut self.manager.skew,
                };
                *skew += seconds * 1_000_000_000;
            }
            Fault::Exit { node, which, code } => {
                if let Some(id) = self.nodes[node].running(which) {
                    self.nodes[node].exit(&id, code, &mut self.ctx);
                }
            }
            Fault::Sickens { node, which } => {
                if let Some(id) = self.nodes[node].running(which) {
                    self.nodes[node].sicken(&id, &mut self.ctx);
                }
            }
            Fault::DiskFull { node: None, .. } => count(&mut self.manager.disk.full, begins),
            Fault::DiskSlow { node: None, write, .. } => {
                keep(&mut self.manager.disk.slow, write, begins);
            }
            Fault::DiskFull { node: Some(node), .. } => {
                count(&mut self.nodes[node].ills.disk_full, begins);
            }
            Fault::DiskSlow { node: Some(node), write, .. } => {
                keep(&mut self.nodes[node].ills.disk_slow, write, begins);
            }
            Fault::KernelFails { node, .. } => {
                count(&mut self.nodes[node].ills.kernel_fails, begins);
            }
            Fault::KernelSlow { node, apply, .. } => {
                keep(&mut self.nodes[node].ills.kernel_slow, apply, begins);
            }
            Fault::EngineHangs { node, .. } => {
                count(&mut self.nodes[node].ills.engine_hangs, begins);
            }
        }
    }

    /// The daemon of node 0 is the manager's, too.
    fn daemon_dies(&mut self, number: usize, begins: bool) {
        let node = &mut self.nodes[number];
        if begins {
            node.ills.away += 1;
            if number == 0 {
                self.manager.die(&mut self.ctx);
            }
            node.die(&mut self.ctx);
        } else {
            node.ills.away -= 1;
            if number == 0 && node.ills.away == 0 && !self.manager.is_up() {
                self.manager.start(&mut self.ctx);
            }
            node.start(&mut self.ctx);
        }
    }

    fn cut(&mut self, node: usize, ways: (bool, bool), begins: bool) {
        let ctx = &mut self.ctx;
        if begins {
            let cut = ctx.network.cut(node, ways);
            ctx.after(KEEP_ALIVE, Event::Broken { node, cut });
        } else {
            let due = ctx.network.mend(ctx.now, node, ways);
            ctx.deliver(due);
        }
    }

    fn user(&mut self, operation: user::Operation) {
        match operation {
            user::Operation::Join => {
                if self.manager.is_up() && self.nodes.len() < 60 {
                    let number = self.nodes.len();
                    self.ctx.tell(|| format!("user: node {number} joins"));
                    self.add_node(number);
                }
            }
            user::Operation::Leave(node) => {
                // The manager's own node stays.
                if let Some(node) = self.nodes.get_mut(node).filter(|node| node.number > 0) {
                    let number = node.number;
                    self.ctx.tell(|| format!("user: node {number} leaves"));
                    node.leave(&mut self.ctx);
                }
            }
            other => self.manager.user(other, &mut self.ctx),
        }
    }

    /// Nothing breaks any more.
    fn calm(&mut self) {
        self.ctx.tell(|| "calm".to_owned());
        self.ctx.calm = true;
        self.calm_at = Some(self.ctx.now);
        self.manager.disk.full = 0;
        self.manager.disk.slow.clear();
        for node in 0..self.nodes.len() {
            let due = self.ctx.network.heal(self.ctx.now, node);
            self.ctx.deliver(due);
            self.nodes[node].ills = Ills::default();
        }
        if !self.manager.is_up() {
            self.manager.start(&mut self.ctx);
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
        self.manager.mend(&mut self.ctx);
        // Of a node that could tell nobody, managers are told by hand.
        for node in self.nodes.iter().filter(|node| node.is_gone) {
            let is_known = |node: &std::sync::Arc<types::Node>| !node.has_left();
            if self.manager.view().node(&node.id).is_some_and(is_known) {
                let operation = user::Operation::RemoveNode(node.number, true);
                self.manager.user(operation, &mut self.ctx);
            }
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
    fn tell_changes(&mut self, before: &store::View) {
        if self.ctx.history.is_told() {
            for line in invariant::changes(before, self.manager.view()) {
                self.ctx.tell(|| line);
            }
        }
    }
}

type Broken = (&'static str, String);

fn count(ills: &mut u32, begins: bool) {
    if begins { *ills += 1 } else { *ills = ills.saturating_sub(1) }
}

fn keep(ills: &mut Vec<Duration>, ill: Duration, begins: bool) {
    if begins {
        ills.push(ill);
    } else if let Some(index) = ills.iter().position(|it| *it == ill) {
        ills.remove(index);
    }
}
