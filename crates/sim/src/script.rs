//! All that is chosen of a run before it begins: a list, from which items can be dropped.

use crate::fault::Fault;
use crate::random::Random;
use crate::user::Operation;
use std::time::Duration;

/// How long faults and users rage.
const STORM: (u64, u64) = (40, 200);

/// A run, as the seed has it.
#[derive(Clone, Debug)]
pub struct Script {
    pub seed: u64,
    /// Nodes that are there from the start; the first ones are managers.
    pub nodes: usize,
    pub managers: usize,
    /// After this nothing breaks any more, and what is broken is mended.
    pub storm: Duration,
    pub noise: Noise,
    /// By time.
    pub items: Vec<Item>,
}

/// What happens at some time.
#[derive(Clone, Debug)]
pub struct Item {
    pub at: Duration,
    pub step: Step,
}

#[derive(Clone, Debug)]
pub enum Step {
    User {
        operation: Operation,
        /// Which manager is asked, of those that are there.
        asked: usize,
    },
    Fault(Fault),
}

/// How bad the network is, all the time until the calm; in a thousand messages.
#[derive(Clone, Copy, Debug, Default)]
pub struct Noise {
    /// Break their connection.
    pub lost: u64,
    /// Calls that arrive twice; users get no answer, and ask again.
    pub doubled: u64,
    /// Take seconds.
    pub late: u64,
}

impl Script {
    /// What follows from a seed.
    pub fn of(seed: u64) -> Self {
        let root = Random::new(seed.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ 0x5eed);
        let mut random = root.fork(1);
        let nodes = usize::try_from(match random.below(20) {
            0 => 12 + random.below(39),
            1..=5 => 5 + random.below(6),
            _ => 2 + random.below(4),
        })
        .unwrap_or(2);
        // Half of the runs have one manager.
        let managers = root.fork(4).pick(&[1, 1, 1, 3, 3, 5]);
        let nodes = nodes.max(managers);
        let storm = random.seconds(STORM.0, STORM.1);
        let noise = match random.below(3) {
            0 => Noise::default(),
            1 => Noise { lost: 2, doubled: 20, late: 20 },
            _ => Noise { lost: 10, doubled: 100, late: 50 },
        };
        let mut items = Vec::new();
        let at = |at, step| Item { at, step };
        let (mut users, mut faults) = (root.fork(2), root.fork(3));
        let mut asked = root.fork(5);
        let mut asks = |operation| {
            let asked = usize::try_from(asked.below(managers as u64)).unwrap_or(0);
            Step::User { operation, asked }
        };
        for operation in Operation::first(&mut users) {
            items.push(at(users.millis(500, 4_000), asks(operation)));
        }
        let (busy, bad) = (random.seconds(1, 9), random.seconds(2, 16));
        let mut time = Duration::from_secs(4);
        while time < storm {
            time += users.between(busy / 4, busy * 2);
            let operation = Operation::draw(&mut users, nodes);
            if users.chance(noise.doubled) {
                let again = time + users.millis(1, 4_000);
                items.push(at(again, asks(operation.clone())));
            }
            items.push(at(time, asks(operation)));
        }
        let mut roles = root.fork(6);
        time = Duration::from_secs(8);
        while time < storm && managers > 1 {
            time += roles.millis(2_000, 40_000);
            items.push(at(time, asks(Operation::draw_role(&mut roles, nodes))));
        }
        // One run in eight has no faults: what fails there is easy to understand.
        time = Duration::from_secs(5);
        while time < storm && !seed.is_multiple_of(8) {
            time += faults.between(bad / 4, bad * 2);
            items.push(at(time, Step::Fault(Fault::draw(&mut faults, nodes, managers))));
        }
        items.retain(|item| item.at < storm);
        items.sort_by_key(|item| item.at);
        Self { seed, nodes, managers, storm, noise, items }
    }
}
