//! What goes wrong, and for how long.

use crate::random::Random;
use std::time::Duration;

/// Something that goes wrong. What lasts ends by itself, at the latest when the calm begins.
#[derive(Clone, Debug)]
pub enum Fault {
    /// A node's daemon dies, on node 0 the manager with it; containers, kernel and name server stay.
    DaemonDies { node: usize, away: Duration },
    /// The whole machine: nothing stays but the disk.
    PowerFails { node: usize, away: Duration },
    /// No packet of the node arrives at the manager, none of the manager's at the node, or both.
    Cut { node: usize, up: bool, down: bool, lasts: Duration },
    /// Connections of the node are reset.
    Reset { node: usize },
    /// The disk of a node, or of the manager, is full.
    DiskFull { node: Option<usize>, lasts: Duration },
    /// Writes take this long.
    DiskSlow { node: Option<usize>, write: Duration, lasts: Duration },
    /// The kernel's network refuses changes.
    KernelFails { node: usize, lasts: Duration },
    /// Its changes take this long.
    KernelSlow { node: usize, apply: Duration, lasts: Duration },
    /// The time of day jumps; `None`: the manager's.
    Clock { node: Option<usize>, seconds: i64 },
    /// A container ends by itself; which of those that run.
    Exit { node: usize, which: u64, code: i32 },
    /// A container's health check fails from now on.
    Sickens { node: usize, which: u64 },
    /// The node's containerd does not answer.
    EngineHangs { node: usize, lasts: Duration },
}

impl Fault {
    /// How long it lasts; `None`: it is a moment.
    pub fn lasts(&self) -> Option<Duration> {
        match self {
            Self::DaemonDies { away: lasts, .. }
            | Self::PowerFails { away: lasts, .. }
            | Self::Cut { lasts, .. }
            | Self::DiskFull { lasts, .. }
            | Self::DiskSlow { lasts, .. }
            | Self::KernelFails { lasts, .. }
            | Self::KernelSlow { lasts, .. }
            | Self::EngineHangs { lasts, .. } => Some(*lasts),
            Self::Reset { .. } | Self::Clock { .. } | Self::Exit { .. } | Self::Sickens { .. } => {
                None
            }
        }
    }

    pub fn draw(random: &mut Random, nodes: usize) -> Self {
        let node = usize::try_from(random.below(nodes as u64)).unwrap_or(0);
        let of = |random: &mut Random| (!random.chance(250)).then_some(node);
        // Short ones are not noticed, long ones are.
        let lasts = match random.below(3) {
            0 => random.millis(50, 3_000),
            1 => random.seconds(2, 20),
            _ => random.seconds(15, 70),
        };
        match random.below(15) {
            0 | 1 => Self::DaemonDies { node: 0, away: lasts },
            2 | 3 => Self::DaemonDies { node, away: lasts },
            4 => Self::PowerFails { node, away: lasts },
            5 => Self::Cut { node, up: true, down: true, lasts },
            6 => Self::Cut { node, up: true, down: false, lasts },
            7 => Self::Cut { node, up: false, down: true, lasts },
            8 => Self::Reset { node },
            9 => match random.below(2) {
                0 => Self::DiskFull { node: of(random), lasts },
                _ => Self::DiskSlow { node: of(random), write: random.millis(100, 12_000), lasts },
            },
            10 => Self::KernelFails { node, lasts },
            11 => Self::KernelSlow { node, apply: random.millis(100, 8_000), lasts },
            12 => {
                let size = random.pick(&[1, 30, 3_600, 86_400 * 400]);
                let seconds = if random.chance(500) { size } else { -size };
                Self::Clock { node: of(random), seconds }
            }
            13 if random.chance(700) => {
                Self::Exit { node, which: random.bits(), code: random.pick(&[0, 1, 137]) }
            }
            13 => Self::Sickens { node, which: random.bits() },
            _ => Self::EngineHangs { node, lasts },
        }
    }
}
