//! The shortest history that still breaks a rule.

use crate::history::Detail;
use crate::script::{Noise, Script};
use crate::world::{Outcome, run};

/// Runs that a search takes at most.
const RUNS: usize = 400;

/// Drops items of a script that breaks a rule, as long as the same rule is broken: halves first,
/// then ever smaller parts, then one by one.
pub fn shrink(script: &Script, rule: &str) -> Script {
    let mut best = script.clone();
    let mut runs = 0;
    let mut try_one = |candidate: &Script| {
        runs += 1;
        let failure = (runs <= RUNS).then(|| run(candidate, Detail::Nothing).failure).flatten();
        failure.filter(|failure| failure.invariant == rule)
    };
    // The noise of the network is seldom needed.
    let quiet = Script { noise: Noise::default(), ..best.clone() };
    if try_one(&quiet).is_some() {
        best = quiet;
    }
    let mut part = best.items.len().div_ceil(2);
    while part > 0 {
        let mut start = 0;
        while start < best.items.len() {
            let mut candidate = best.clone();
            let end = (start + part).min(candidate.items.len());
            candidate.items.drain(start..end);
            if try_one(&candidate).is_some() {
                best = candidate;
            } else {
                start = end;
            }
        }
        part = if part == 1 { 0 } else { part.div_ceil(2) };
    }
    best
}

/// What a failing seed is told with: the shortest history, and the command that repeats it.
pub fn explain(script: &Script, outcome: &Outcome) -> String {
    let Some(failure) = &outcome.failure else { return "nothing is broken".to_owned() };
    let short = shrink(script, failure.invariant);
    let told = run(&short, Detail::Story);
    let mut lines = vec![
        format!("seed {}: {}: {}", script.seed, failure.invariant, failure.why),
        format!(
            "after {:.1} s; {} of {} items are enough:",
            failure.at.as_secs_f64(),
            short.items.len(),
            script.items.len(),
        ),
    ];
    for item in &short.items {
        lines.push(format!("  {:>9.3} {:?}", item.at.as_secs_f64(), item.step));
    }
    lines.push("what happens then:".to_owned());
    lines.extend(told.history);
    lines.push(format!("repeat it: make sim SEED={}\n", script.seed));
    lines.join("\n")
}
