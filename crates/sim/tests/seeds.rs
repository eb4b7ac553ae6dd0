//! The seeds that every change has to pass.

use sim::{Detail, Script, run, shrink};

fn play(seeds: std::ops::Range<u64>) {
    for seed in seeds {
        let script = Script::of(seed);
        let outcome = run(&script, Detail::Nothing);
        assert!(outcome.failure.is_none(), "{}", shrink::explain(&script, &outcome));
    }
}

/// Small parts, which run side by side.
macro_rules! seeds {
    ($($name:ident: $seeds:expr;)*) => {
        $(#[test]
        fn $name() {
            play($seeds);
        })*
    };
}

seeds! {
    seeds_0_to_20: 0..20;
    seeds_20_to_40: 20..40;
    seeds_40_to_60: 40..60;
    seeds_60_to_80: 60..80;
    seeds_80_to_100: 80..100;
    seeds_100_to_120: 100..120;
    seeds_120_to_140: 120..140;
    seeds_140_to_160: 140..160;
    seeds_160_to_180: 160..180;
    seeds_180_to_200: 180..200;
}

#[test]
fn a_seed_is_the_same_run_every_time() {
    for seed in [3, 11, 17] {
        let [one, other] = [(); 2].map(|()| run(&Script::of(seed), Detail::Everything));
        assert!(one.history.len() > 1000, "{} lines", one.history.len());
        assert!(one.history == other.history, "seed {seed} differs");
    }
}
