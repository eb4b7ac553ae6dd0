//! What goes wrong, and for how long.

use crate::consensus::Consensus;
use crate::context::Event;
use crate::network::KEEP_ALIVE;
use crate::random::Random;
use crate::world::World;
use std::time::Duration;

/// Whose disk or clock it is. A manager's log has a disk of its own.
#[derive(Clone, Copy, Debug)]
pub enum Of {
    Node(usize),
    Manager(usize),
}

/// Something that goes wrong. What lasts ends by itself, at the latest when the calm begins.
#[derive(Clone, Debug)]
pub enum Fault {
    /// A node's daemon dies, a manager with it; containers, kernel and name server stay.
    DaemonDies {
        node: usize,
        away: Duration,
    },
    /// The whole machine: nothing stays but the disk.
    PowerFails {
        node: usize,
        away: Duration,
    },
    /// No packet of the node arrives at others, none of others at the node, or both.
    Cut {
        node: usize,
        up: bool,
        down: bool,
        lasts: Duration,
    },
    /// Connections of the node are reset.
    Reset {
        node: usize,
    },
    /// A manager and the others do not hear each other, though nodes hear all of them.
    Apart {
        manager: usize,
        lasts: Duration,
    },
    /// The manager that leads lets another one lead.
    Transfer,
    DiskFull {
        of: Of,
        lasts: Duration,
    },
    /// Writes take this long.
    DiskSlow {
        of: Of,
        write: Duration,
        lasts: Duration,
    },
    /// The kernel's network refuses changes.
    KernelFails {
        node: usize,
        lasts: Duration,
    },
    /// Its changes take this long.
    KernelSlow {
        node: usize,
        apply: Duration,
        lasts: Duration,
    },
    /// The time of day jumps.
    Clock {
        of: Of,
        seconds: i64,
    },
    /// A container ends by itself; which of those that run.
    Exit {
        node: usize,
        which: u64,
        code: i32,
    },
    /// A container's health check fails from now on.
    Sickens {
        node: usize,
        which: u64,
    },
    /// The node's containerd does not answer.
    EngineHangs {
        node: usize,
        lasts: Duration,
    },
}

impl Fault {
    /// How long it lasts; `None`: it is a moment.
    pub fn lasts(&self) -> Option<Duration> {
        match self {
            Self::DaemonDies { away: lasts, .. }
            | Self::PowerFails { away: lasts, .. }
            | Self::Cut { lasts, .. }
            | Self::Apart { lasts, .. }
            | Self::DiskFull { lasts, .. }
            | Self::DiskSlow { lasts, .. }
            | Self::KernelFails { lasts, .. }
            | Self::KernelSlow { lasts, .. }
            | Self::EngineHangs { lasts, .. } => Some(*lasts),
            Self::Reset { .. }
            | Self::Transfer
            | Self::Clock { .. }
            | Self::Exit { .. }
            | Self::Sickens { .. } => None,
        }
    }

    pub fn draw(random: &mut Random, nodes: usize, managers: usize) -> Self {
        let node = usize::try_from(random.below(nodes as u64)).unwrap_or(0);
        let manager = node % managers;
        let of = |random: &mut Random| {
            if random.chance(250) { Of::Manager(manager) } else { Of::Node(node) }
        };
        // Short ones are not noticed, long ones are.
        let lasts = match random.below(3) {
            0 => random.millis(50, 3_000),
            1 => random.seconds(2, 20),
            _ => random.seconds(15, 70),
        };
        // What only several managers notice.
        if managers > 1 && random.chance(250) {
            return match random.below(4) {
                0 => Self::Transfer,
                _ => Self::Apart { manager, lasts },
            };
        }
        match random.below(15) {
            0 | 1 => Self::DaemonDies { node: manager, away: lasts },
            2 | 3 => Self::DaemonDies { node, away: lasts },
            4 => Self::PowerFails { node, away: lasts },
            5 => Self::Cut { node, up: true, down: true, lasts },
            6 => Self::Cut { node, up: true, down: false, lasts },
            7 => Self::Cut { node, up: false, down: true, lasts },
            8 => Self::Reset { node },
            9 => match random.below(2) {
                0 => Self::DiskFull { of: of(random), lasts },
                _ => Self::DiskSlow { of: of(random), write: random.millis(100, 12_000), lasts },
            },
            10 => Self::KernelFails { node, lasts },
            11 => Self::KernelSlow { node, apply: random.millis(100, 8_000), lasts },
            12 => {
                let size = random.pick(&[1, 30, 3_600, 86_400 * 400]);
                let seconds = if random.chance(500) { size } else { -size };
                Self::Clock { of: of(random), seconds }
            }
            13 if random.chance(700) => {
                Self::Exit { node, which: random.bits(), code: random.pick(&[0, 1, 137]) }
            }
            13 => Self::Sickens { node, which: random.bits() },
            _ => Self::EngineHangs { node, lasts },
        }
    }
}

impl World {
    /// Begins or ends a fault.
    pub(crate) fn fault(&mut self, fault: &Fault, begins: bool) {
        match *fault {
            Fault::DaemonDies { node, .. } => self.daemon_dies(node, begins),
            Fault::PowerFails { node, .. } => {
                if begins {
                    self.nodes[node].lose_power(&mut self.ctx);
                }
                self.daemon_dies(node, begins);
            }
            Fault::Apart { manager, .. } => self.ctx.network.part(manager, begins),
            Fault::Transfer => self.hand_over(),
            Fault::Cut { node, up, down, .. } => self.cut(node, (up, down), begins),
            Fault::Reset { node } => {
                let all = self.ctx.network.of_machine(node);
                self.ctx.sever_all(all, Duration::from_millis(200));
            }
            Fault::Clock { of, seconds } => {
                let skew = match of {
                    Of::Node(node) => &mut self.nodes[node].skew,
                    Of::Manager(machine) => match self.managers.get_mut(&machine) {
                        Some(manager) => &mut manager.skew,
                        None => return,
                    },
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
            Fault::DiskFull { of: Of::Manager(machine), .. } => {
                count(&mut self.ctx.log.disk(machine).full, begins);
            }
            Fault::DiskSlow { of: Of::Manager(machine), write, .. } => {
                keep(&mut self.ctx.log.disk(machine).slow, write, begins);
            }
            Fault::DiskFull { of: Of::Node(node), .. } => {
                count(&mut self.nodes[node].ills.disk_full, begins);
            }
            Fault::DiskSlow { of: Of::Node(node), write, .. } => {
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

    /// The daemon of a manager's machine is the manager's, too.
    fn daemon_dies(&mut self, number: usize, begins: bool) {
        let node = &mut self.nodes[number];
        if begins {
            node.ills.away += 1;
            if let Some(manager) = self.managers.get_mut(&number) {
                manager.die(&mut self.ctx);
            }
            node.die(&mut self.ctx);
        } else {
            node.ills.away -= 1;
            let manager = self.managers.get_mut(&number).filter(|_| node.ills.away == 0);
            if let Some(manager) = manager {
                manager.start(&mut self.ctx);
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

    fn hand_over(&mut self) {
        self.ctx.tell(|| "the leader hands over".to_owned());
        self.ctx.log(Consensus::hand_over);
        self.look_at_log();
    }
}

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
