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
    seeds_0_to_10: 0..10;
    seeds_10_to_20: 10..20;
    seeds_20_to_30: 20..30;
    seeds_30_to_40: 30..40;
    seeds_40_to_50: 40..50;
    seeds_50_to_60: 50..60;
    seeds_60_to_70: 60..70;
    seeds_70_to_80: 70..80;
    seeds_80_to_90: 80..90;
    seeds_90_to_100: 90..100;
    seeds_100_to_110: 100..110;
    seeds_110_to_120: 110..120;
    seeds_120_to_130: 120..130;
    seeds_130_to_140: 130..140;
    seeds_140_to_150: 140..150;
    seeds_150_to_160: 150..160;
    seeds_160_to_170: 160..170;
    seeds_170_to_180: 170..180;
    seeds_180_to_190: 180..190;
    seeds_190_to_200: 190..200;
}

#[test]
fn a_seed_is_the_same_run_every_time() {
    for seed in [3, 11, 17] {
        let [one, other] = [(); 2].map(|()| run(&Script::of(seed), Detail::Everything));
        assert!(one.history.len() > 1000, "{} lines", one.history.len());
        assert!(one.history == other.history, "seed {seed} differs");
    }
}
