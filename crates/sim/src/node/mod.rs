//! A node: a machine with its disk, its containers and its kernel, and the daemon on it.
//!
//! The decisions are the real ones (`agent::session`, `agent::worker`, `discovery`). Here is what
//! carries them, as `agent::connection`, `agent::work` and `dataplane` do, and the world that they
//! meet.

mod connection;
mod container;
mod dataplane;
mod execute;
mod role;
mod work;

use crate::consensus::Id;
use crate::context::{Context, Event, Happened};
use crate::manager::{address, node_id, wall};
use crate::random::Random;
use agent::leaving::Leaving;
use agent::worker::{Entry, Outcome, Worker};
use connection::Connection;
pub use container::Container;
use container::{Fate, State};
pub use dataplane::Kernel;
use dataplane::{Dataplane, Kept};
use discovery::{Here, Knowledge};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;
use types::{NodeId, NodeRole, Task, TaskId, Timestamp};
use work::LastCall;

/// Something that is due to the daemon.
#[derive(Debug)]
pub enum Due {
    /// To open a session; of so many attempts.
    Attempt(u64),
    /// A call of this connection has not been answered.
    Late { connection: u64, call: u64 },
    /// The session wants to be called.
    SessionWakes { connection: u64 },
    /// The next order of the session is carried out.
    Order { connection: u64 },
    /// Managers want this of the worker.
    Assigned(agent::worker::Event),
    /// A deadline of the worker; of so many.
    Wake(u64),
    /// The worker's loop hears of something.
    Event(agent::worker::Event),
    /// What the worker wants is carried out: the journal is written.
    Effects(Vec<agent::worker::Effect>),
    /// An operation is over, if it is still this one.
    Done { task: TaskId, operation: u64, outcome: Outcome },
    /// The engine does what it was asked for.
    Engine { task: TaskId, operation: u64 },
    /// Nobody waits for a container's network any more.
    AttachLate { container: String, operation: u64 },
    /// The kernel has taken what it was told, or not.
    Settled,
    /// It is tried again.
    Settle,
    /// The last calls of a node are not answered.
    LeaveLate(u64),
    /// It is seen whether the node is what its certificate says.
    Role,
    /// It is not told its number.
    EnrollLate(u64),
}

/// Something that is due on the machine.
#[derive(Debug)]
pub struct MachineDue {
    container: String,
    plan: u64,
    fate: Fate,
}

/// Faults that last on a node; each counts how many of its kind do.
#[derive(Debug, Default)]
pub struct Ills {
    pub away: u32,
    pub disk_full: u32,
    pub disk_slow: Vec<Duration>,
    pub kernel_fails: u32,
    pub kernel_slow: Vec<Duration>,
    pub engine_hangs: u32,
}

impl Ills {
    pub fn is_well(&self) -> bool {
        let Self { away, disk_full, disk_slow, kernel_fails, kernel_slow, engine_hangs } = self;
        away + disk_full + kernel_fails + engine_hangs == 0
            && disk_slow.is_empty()
            && kernel_slow.is_empty()
    }
}

#[derive(Debug)]
pub struct Node {
    pub number: usize,
    pub id: NodeId,
    pub address: IpAddr,
    pub ills: Ills,
    /// How far its time of day is off.
    pub skew: i64,
    pub containers: BTreeMap<String, Container>,
    pub kernel: Kernel,
    /// It has left, and nothing of it is there.
    pub is_gone: bool,
    /// Its user has asked it to leave.
    pub wants_to_leave: bool,
    /// It leaves, and could tell nobody.
    pub leaves_untold: bool,
    /// Where managers are, as it has heard last.
    managers: Vec<String>,
    /// What its certificate says that it is, and its number in the log where it has a copy of it.
    role: NodeRole,
    own: Option<Id>,
    /// Counts what was power on.
    machine: u64,
    /// Counts its daemons.
    life: u64,
    random: Random,
    journal: BTreeMap<TaskId, Entry>,
    kept: Kept,
    alive: Option<Alive>,
}

/// What a daemon has in memory.
#[derive(Debug)]
struct Alive {
    worker: Worker,
    dataplane: Dataplane,
    connection: Connection,
    /// The operation of each task that is under way.
    operations: BTreeMap<TaskId, execute::Running>,
    watched: BTreeSet<String>,
    leaving: Option<Leaving>,
    /// The call that says so to a manager.
    last_call: Option<LastCall>,
    /// It asks for its number in the log: by this connection, of the manager in this place.
    enrolls: Option<(u64, usize)>,
    /// It has a session anew, and does not know whether its number is still its own.
    asks_number: bool,
    swept: bool,
    wakes: u64,
    /// The loop waits for its journal until then.
    busy_until: Duration,
}

impl Node {
    /// A machine that has joined by the manager on another one; its own number in the log, if it has
    /// one.
    pub fn new(number: usize, (joined_by, own): (usize, Option<Id>), random: Random) -> Self {
        let last = u8::try_from(number + 1).unwrap_or(u8::MAX);
        Self {
            number,
            id: node_id(number),
            address: [192, 168, 0, last].into(),
            ills: Ills::default(),
            skew: 0,
            containers: BTreeMap::new(),
            kernel: Kernel::default(),
            is_gone: false,
            wants_to_leave: false,
            leaves_untold: false,
            managers: vec![address(joined_by)],
            role: if own.is_some() { NodeRole::Manager } else { NodeRole::Worker },
            own,
            machine: 0,
            life: 0,
            random,
            journal: BTreeMap::new(),
            kept: Kept::default(),
            alive: None,
        }
    }

    pub fn is_up(&self) -> bool {
        self.alive.is_some()
    }

    /// What the daemon knows of the cluster and of its own containers.
    pub fn knows(&self) -> Option<(&Knowledge, &Here)> {
        self.alive.as_ref().map(|alive| (&*alive.dataplane.known, &alive.dataplane.here))
    }

    /// Says whether kernel and names hold all that is known.
    pub fn is_settled(&self) -> bool {
        self.alive.as_ref().is_some_and(|alive| {
            alive.dataplane.is_settled() && alive.operations.is_empty() && alive.leaving.is_none()
        })
    }

    /// Says whether a task's process runs here.
    pub fn runs(&self, task: &TaskId) -> bool {
        self.containers.values().any(|it| it.task == *task && it.is_running())
    }

    /// The tasks that its disk knows of.
    pub fn tasks(&self) -> impl Iterator<Item = &Task> {
        self.journal.values().map(|entry| &entry.task)
    }

    pub fn task(&self, id: &TaskId) -> Option<&Task> {
        self.journal.get(id).map(|entry| &entry.task)
    }

    /// By the node's clock.
    fn time(&self, ctx: &Context) -> Timestamp {
        wall(ctx.now, self.skew)
    }

    fn clock(&self, ctx: &Context) -> agent::Now {
        agent::Now { uptime: ctx.now, time: self.time(ctx) }
    }

    fn due(&self, delay: Duration, due: Due, ctx: &mut Context) {
        ctx.after(delay, Event::Node(self.number, self.life, due));
    }

    /// The daemon starts, if nothing keeps it away.
    pub fn start(&mut self, ctx: &mut Context) {
        if self.ills.away > 0 || self.alive.is_some() || self.is_gone {
            return;
        }
        self.life += 1;
        let now = self.time(ctx);
        let containers = &self.containers;
        let dataplane =
            Dataplane::open(&self.kept, |id| containers.get(id).is_some_and(Container::is_running));
        self.alive = Some(Alive {
            worker: Worker::default(),
            dataplane,
            connection: Connection::new(now),
            operations: BTreeMap::new(),
            watched: BTreeSet::new(),
            leaving: None,
            last_call: None,
            enrolls: None,
            asks_number: false,
            swept: false,
            wakes: 0,
            busy_until: ctx.now,
        });
        let number = self.number;
        ctx.tell(|| format!("node {number}: daemon starts"));
        self.take_over(ctx);
        self.settle(ctx);
        self.attempt_after(Duration::from_millis(1), ctx);
        self.take_role(ctx);
    }

    /// The daemon dies. Containers, kernel and name server stay.
    pub fn die(&mut self, ctx: &mut Context) {
        if self.alive.take().is_none() {
            return;
        }
        let number = self.number;
        ctx.tell(|| format!("node {number}: daemon dies"));
        ctx.sever_all(ctx.network.of_node(number), Duration::from_millis(50));
    }

    /// The machine loses power: nothing but the disk stays.
    pub fn lose_power(&mut self, ctx: &mut Context) {
        let number = self.number;
        ctx.tell(|| format!("node {number}: power fails"));
        self.alive = None;
        self.machine += 1;
        for container in self.containers.values_mut().filter(|it| it.is_running()) {
            container.state = State::Exited(137);
            container.plans += 1;
            ctx.happened.push(Happened::Ended { node: number, task: container.task.clone() });
        }
        self.kernel = Kernel::default();
        // Nobody says so to the manager.
        ctx.sever_all(ctx.network.of_node(number), crate::network::KEEP_ALIVE);
    }

    pub fn handle(&mut self, life: u64, due: Due, ctx: &mut Context) {
        if life != self.life {
            return;
        }
        let Some(alive) = &self.alive else { return };
        let is_work = match &due {
            Due::Wake(_)
            | Due::Assigned(_)
            | Due::Event(_)
            | Due::Done { .. }
            | Due::LeaveLate(_) => true,
            Due::Attempt(_)
            | Due::Late { .. }
            | Due::SessionWakes { .. }
            | Due::Order { .. }
            | Due::Effects(_)
            | Due::Engine { .. }
            | Due::AttachLate { .. }
            | Due::Settled
            | Due::Settle
            | Due::Role
            | Due::EnrollLate(_) => false,
        };
        if is_work && ctx.now < alive.busy_until {
            return ctx.at(alive.busy_until, Event::Node(self.number, life, due));
        }
        match due {
            Due::Attempt(count) => self.attempt(count, ctx),
            Due::Late { connection, call } => self.late(connection, call, ctx),
            Due::SessionWakes { connection } => self.session_wakes(connection, ctx),
            Due::Order { connection } => self.order(connection, ctx),
            Due::Assigned(event) => self.assigned(event, ctx),
            Due::Wake(count) => self.wake(count, ctx),
            Due::Event(event) => self.work(event, ctx),
            Due::Effects(effects) => self.carry_out(effects, ctx),
            Due::Done { task, operation, outcome } => self.done(task, operation, outcome, ctx),
            Due::Engine { task, operation } => self.engine(task, operation, ctx),
            Due::AttachLate { container, operation } => {
                self.attach_late(&container, operation, ctx);
            }
            Due::Settled => self.settled(ctx),
            Due::Settle => self.settle(ctx),
            Due::LeaveLate(connection) => self.leave_late(connection, ctx),
            Due::Role => self.take_role(ctx),
            Due::EnrollLate(connection) => self.enroll_late(connection, ctx),
        }
    }

    /// A container does what it does by itself.
    pub fn machine(&mut self, machine: u64, due: MachineDue, ctx: &mut Context) {
        let MachineDue { container: id, plan, fate } = due;
        let Some(container) = self.containers.get_mut(&id) else { return };
        if machine != self.machine || container.plans != plan || !container.is_running() {
            return;
        }
        match fate {
            Fate::Exits(code) => self.exit(&id, code, ctx),
            Fate::Healthy(healthy) => {
                container.healthy = Some(healthy);
                let task = container.task.clone();
                self.observe(&id, agent::worker::Event::Health { task, healthy }, ctx);
            }
        }
    }

    /// One of the containers that run here; `which` says which.
    pub fn running(&self, which: u64) -> Option<String> {
        let running: Vec<&String> =
            self.containers.iter().filter(|(_, it)| it.is_running()).map(|(id, _)| id).collect();
        let index = which.checked_rem(running.len() as u64)?;
        running.get(usize::try_from(index).ok()?).map(|id| (*id).clone())
    }

    /// A container's health check fails from now on.
    pub fn sicken(&mut self, id: &str, ctx: &mut Context) {
        let Some(container) = self.containers.get_mut(id) else { return };
        if container.has_health_check && container.healthy == Some(true) {
            container.healthy = Some(false);
            let task = container.task.clone();
            self.observe(id, agent::worker::Event::Health { task, healthy: false }, ctx);
        }
    }

    /// The kernel follows, if there is something to follow and it is not busy.
    fn settle(&mut self, ctx: &mut Context) {
        let slow = self.ills.kernel_slow.iter().max().copied().unwrap_or_default();
        let Some(alive) = &mut self.alive else { return };
        if alive.dataplane.settle() {
            let apply = self.random.between(Duration::from_micros(200), Duration::from_millis(8));
            self.due(apply + slow, Due::Settled, ctx);
        }
    }

    fn settled(&mut self, ctx: &mut Context) {
        let (works, saved) = (self.ills.kernel_fails == 0, self.ills.disk_full == 0);
        let Some(alive) = &mut self.alive else { return };
        alive.dataplane.settled((works, saved), &mut self.kernel);
        if works && saved {
            self.kept = alive.dataplane.kept();
            self.attached(ctx);
        } else {
            self.due(Duration::from_millis(500), Due::Settle, ctx);
        }
        self.tell_applied(ctx);
        self.order_on(ctx);
        if works && saved {
            self.settle(ctx);
        }
    }
}
