//! Numbers that mostly stand side by side.

use std::collections::BTreeMap;

/// A set of numbers, kept as runs without gaps: which is the next one that is not in it is found
/// without a look at those before.
#[derive(Debug, Default)]
pub(crate) struct Runs {
    /// The first number of each run -> its last one. No two of them touch.
    runs: BTreeMap<u128, u128>,
}

impl Runs {
    pub(crate) fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// The first number from `number` on that is not in it.
    pub(crate) fn gap(&self, number: u128) -> u128 {
        self.run(number).map_or(number, |(_, last)| last + 1)
    }

    /// Says whether it was not there before.
    pub(crate) fn insert(&mut self, number: u128) -> bool {
        if self.run(number).is_some() {
            return false;
        }
        let last = self.runs.remove(&(number + 1)).unwrap_or(number);
        let before = number.checked_sub(1).and_then(|before| self.run(before));
        self.runs.insert(before.map_or(number, |(first, _)| first), last);
        true
    }

    pub(crate) fn remove(&mut self, number: u128) {
        let Some((first, last)) = self.run(number) else { return };
        self.runs.remove(&first);
        if first < number {
            self.runs.insert(first, number - 1);
        }
        if number < last {
            self.runs.insert(number + 1, last);
        }
    }

    /// The run that a number is in.
    fn run(&self, number: u128) -> Option<(u128, u128)> {
        let (first, last) = self.runs.range(..=number).next_back()?;
        (number <= *last).then_some((*first, *last))
    }
}

impl Extend<u128> for Runs {
    fn extend<I: IntoIterator<Item = u128>>(&mut self, numbers: I) {
        for number in numbers {
            self.insert(number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn runs_are_a_set(changes in prop::collection::vec((0..20_u128, any::<bool>()), 0..60)) {
            let (mut runs, mut set) = (Runs::default(), BTreeSet::new());
            for (number, is_added) in changes {
                if is_added {
                    prop_assert_eq!(runs.insert(number), set.insert(number));
                } else {
                    runs.remove(number);
                    set.remove(&number);
                }
                prop_assert_eq!(runs.is_empty(), set.is_empty());
                for from in 0..21 {
                    prop_assert_eq!(Some(runs.gap(from)), (from..=21).find(|it| !set.contains(it)));
                }
                let touch = |(one, other): (&u128, &u128)| one + 1 == *other;
                prop_assert!(!runs.runs.values().zip(runs.runs.keys().skip(1)).any(touch));
            }
        }
    }
}
