//! `sim FROM..TO` plays seeds and says how many a minute; `sim SEED` plays one, and prints the
//! shortest history of one that breaks a rule.

#![expect(clippy::print_stdout, reason = "a program that tells")]

use sim::{Detail, Script, run, shrink};
use std::process::ExitCode;
use std::time::{Duration, Instant};

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let what = arguments.next().unwrap_or_else(|| "0..200".to_owned());
    // What panics is told with its seed.
    std::panic::set_hook(Box::new(|_| {}));
    let seeds = match what.split_once("..") {
        Some((from, to)) => (from.parse(), to.parse()),
        None => (what.parse(), what.parse::<u64>().map(|seed| seed + 1)),
    };
    let (Ok(from), Ok(to)) = seeds else {
        println!("usage: sim FROM..TO | sim SEED [all]");
        return ExitCode::FAILURE;
    };
    if to == from + 1 {
        return one(from, arguments.next().is_some());
    }
    many(from, to, arguments.next().as_deref() == Some("first"))
}

fn one(seed: u64, everything: bool) -> ExitCode {
    let script = Script::of(seed);
    let detail = if everything { Detail::Everything } else { Detail::Nothing };
    let outcome = run(&script, detail);
    for line in &outcome.history {
        println!("{line}");
    }
    if outcome.failure.is_none() {
        println!(
            "seed {seed}: well after {:.0} s, {} events",
            outcome.time.as_secs_f64(),
            outcome.events
        );
        return ExitCode::SUCCESS;
    }
    print!("{}", shrink::explain(&script, &outcome));
    ExitCode::FAILURE
}

fn many(from: u64, to: u64, stops: bool) -> ExitCode {
    let began = now();
    let (mut broken, mut time, mut events, mut played) = (0, Duration::ZERO, 0, 0);
    for seed in from..to {
        let outcome = run(&Script::of(seed), Detail::Nothing);
        played += 1;
        time += outcome.time;
        events += outcome.events;
        if let Some(failure) = outcome.failure {
            broken += 1;
            let why: String = failure.why.chars().take(200).collect();
            println!("seed {seed}: {}: {why} (make sim SEED={seed})", failure.invariant);
            if stops {
                break;
            }
        }
    }
    let took = now().duration_since(began).as_secs_f64();
    println!(
        "{played} seeds, {broken} broken; {:.0} seeds a minute, {:.0} times the real time, {events} events",
        f64::from(played) * 60.0 / took,
        time.as_secs_f64() / took,
    );
    if broken == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[expect(clippy::disallowed_methods, reason = "how many seeds a minute")]
fn now() -> Instant {
    Instant::now()
}
