//! The benchmark: every figure is a ratio of two measurements in one run, taken in turn, because
//! machines are noisy and differ. `make bench` runs it on a lab of its own.

mod dns;
mod exec;
mod load;
mod requests;
mod scale;

use e2e::Lab;
use std::time::Duration;

/// How long a service may take until all its tasks run.
pub(crate) const CONVERGE_MAX: Duration = Duration::from_mins(3);
/// Measurements of each side; the median counts.
const ROUNDS: usize = 5;

fn main() {
    let lab = Lab::up(3, &["busybox", "nginx", "client"]);
    lab.docker(&["network", "create", "--driver", "overlay", "bench"]).good();
    report(&dns::run(&lab));
    report(&requests::run(&lab));
    report(&exec::run(&lab));
    report(&scale::run(&lab));
}

/// A figure: what was measured, against what, and how they compare.
pub(crate) struct Figure {
    pub(crate) name: &'static str,
    pub(crate) ours: String,
    pub(crate) peer: String,
    pub(crate) ratio: f64,
}

#[expect(clippy::print_stdout, reason = "the report is what the benchmark is for")]
fn report(figure: &Figure) {
    println!(
        "{:<46} {:>18} against {:>18}  ratio {:.2}",
        figure.name, figure.ours, figure.peer, figure.ratio
    );
}

/// Measures two things in turn; returns the median of each.
pub(crate) fn in_turn(mut ours: impl FnMut() -> f64, mut peer: impl FnMut() -> f64) -> (f64, f64) {
    let pairs: Vec<(f64, f64)> = (0..ROUNDS).map(|_| (ours(), peer())).collect();
    let median = |mut values: Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    (
        median(pairs.iter().map(|pair| pair.0).collect()),
        median(pairs.iter().map(|pair| pair.1).collect()),
    )
}

/// A service's only container, and where its network namespace is.
pub(crate) fn sandbox(lab: &Lab, service: &str) -> (u8, String, std::path::PathBuf) {
    let (node, id) = lab.containers(3, service).remove(0);
    let shown =
        lab.docker_at(node, &["inspect", "--format", "{{.NetworkSettings.SandboxKey}}", &id]);
    (node, id, shown.good().trim().into())
}
