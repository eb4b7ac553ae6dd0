//! The seeds that every change has to pass.

use sim::{Detail, Script, run, shrink};

fn play(seeds: impl Iterator<Item = u64>) {
    for seed in seeds {
        let script = Script::of(seed);
        let outcome = run(&script, Detail::Nothing);
        assert!(outcome.failure.is_none(), "{}", shrink::explain(&script, &outcome));
    }
}

#[test]
fn seeds_0_to_50() {
    play(0..50);
}

#[test]
fn seeds_50_to_100() {
    play(50..100);
}

#[test]
fn seeds_100_to_150() {
    play(100..150);
}

#[test]
fn seeds_150_to_200() {
    play(150..200);
}

#[test]
fn a_seed_is_the_same_run_every_time() {
    for seed in [3, 11, 17] {
        let [one, other] = [(); 2].map(|()| run(&Script::of(seed), Detail::Everything));
        assert!(one.history.len() > 1000, "{} lines", one.history.len());
        assert!(one.history == other.history, "seed {seed} differs");
    }
}
