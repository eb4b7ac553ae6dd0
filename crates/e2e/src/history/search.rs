//! A second opinion: the checker of a library, which knows nothing of what is special here and searches
//! for an order of a register's calls (Wing and Gong's algorithm, with Lowe's memory).
//!
//! It knows no call that never came back. Of a write with an unknown outcome that nobody has seen it is not
//! told, as nothing follows from it; one that was seen was done by the end of the first call that saw it.

use super::{Call, Outcome, Value, What};
use std::collections::BTreeMap;
use todc_utils::linearizability::WGLChecker;
use todc_utils::linearizability::history::{Action, History};
use todc_utils::specifications::Specification;

/// What a register does.
struct Register;

#[derive(Clone, Copy, Debug)]
enum Operation {
    Read(Value),
    /// Takes effect on this value alone.
    Write {
        on: Value,
        value: Value,
    },
}

impl Specification for Register {
    type State = Value;
    type Operation = Operation;

    fn init() -> Value {
        0
    }

    fn apply(operation: &Operation, state: &Value) -> (bool, Value) {
        match *operation {
            Operation::Read(value) => (value == *state, *state),
            Operation::Write { on, value } if on == *state => (true, value),
            Operation::Write { .. } => (false, *state),
        }
    }
}

/// Says whether the calls of one register have an order.
pub(super) fn finds_order(calls: &[&Call]) -> bool {
    let seen = seen(calls);
    let mut events = Vec::new();
    for (process, call) in calls.iter().enumerate() {
        let (operation, ended) = match call.what {
            What::Read(value) => (Operation::Read(value), call.ended),
            What::Write { on, value, outcome: Outcome::Done } => {
                (Operation::Write { on, value }, call.ended)
            }
            What::Write { on, value, outcome: Outcome::Unknown } => match seen.get(&value) {
                Some(by) => (Operation::Write { on, value }, (*by).max(call.begun)),
                None => continue,
            },
            What::Write { outcome: Outcome::Refused, .. } => continue,
        };
        // Of what comes at one time, what begins comes first: nothing is before the other.
        events.push((call.begun, false, process, Action::Call(operation)));
        events.push((ended, true, process, Action::Response(operation)));
    }
    if events.is_empty() {
        return true;
    }
    events.sort_by_key(|(at, is_end, process, _)| (*at, *is_end, *process));
    let actions = events.into_iter().map(|(_, _, process, action)| (process, action));
    WGLChecker::<Register>::is_linearizable(History::from_actions(actions.collect()))
}

/// When a value was there at the latest, of those that were seen.
fn seen(calls: &[&Call]) -> BTreeMap<Value, u64> {
    let mut seen = BTreeMap::new();
    let mut note = |value: Value, at: u64| {
        let known = seen.entry(value).or_insert(at);
        *known = at.min(*known);
    };
    let mut unknown = BTreeMap::new();
    for call in calls {
        match call.what {
            What::Read(value) => note(value, call.ended),
            What::Write { on, outcome: Outcome::Done, .. } => note(on, call.ended),
            What::Write { on, value, outcome: Outcome::Unknown } => {
                unknown.insert(value, on);
            }
            What::Write { outcome: Outcome::Refused, .. } => {}
        }
    }
    // What was written on was there when what was written on it was.
    for _ in 0..unknown.len() {
        for (value, on) in &unknown {
            if let Some(at) = seen.get(value).copied() {
                let known = seen.entry(*on).or_insert(at);
                *known = at.min(*known);
            }
        }
    }
    seen
}

#[cfg(test)]
mod tests {
    use super::super::{check_register, in_one_order};
    use super::*;
    use proptest::prelude::*;
    use proptest::strategy::ValueTree;

    /// A call that has a value of its own to write: what it does, on which value, when.
    fn calls() -> impl Strategy<Value = Vec<Call>> {
        let call = (0..5_u8, 0..6_u64, 0..12_u64, 0..6_u64);
        prop::collection::vec(call, 1..8).prop_map(|calls| {
            let call = |(number, (kind, other, begun, length)): (u64, (u8, u64, u64, u64))| {
                let write = |outcome| What::Write { on: other, value: number + 1, outcome };
                let what = match kind {
                    0 | 1 => What::Read(other),
                    2 | 3 => write(Outcome::Done),
                    _ => write(Outcome::Unknown),
                };
                Call { register: 1, client: number, node: 1, begun, ended: begun + length, what }
            };
            (0..).zip(calls).map(call).collect()
        })
    }

    /// Calls that can be: values follow from each other, and each call is somewhere around its time.
    fn likely() -> impl Strategy<Value = Vec<Call>> {
        let step = (0..4_u8, 1..5_u64, 0..5_u64, 0..4_u64, 0..24_u8);
        prop::collection::vec(step, 1..40).prop_map(|steps| {
            let (mut state, mut at, mut calls) = (0, 10, Vec::new());
            for (number, (kind, pause, before, after, slip)) in (1..).zip(steps) {
                at += pause;
                let outcome = if kind == 3 { Outcome::Unknown } else { Outcome::Done };
                let what = match kind {
                    0 | 1 => What::Read(if slip == 0 { state / 2 } else { state }),
                    _ => What::Write { on: state, value: number, outcome },
                };
                if let What::Write { value, .. } = what
                    && (kind == 2 || slip < 12)
                {
                    state = value;
                }
                let (begun, ended) = (at - before, at + after);
                calls.push(Call { register: 1, client: number, node: 1, begun, ended, what });
            }
            calls
        })
    }

    fn both(calls: &[Call]) -> [bool; 2] {
        let calls: Vec<&Call> = calls.iter().collect();
        [in_one_order(&calls).is_ok(), finds_order(&calls)]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4_000))]

        #[test]
        fn both_checkers_say_the_same_of_any_calls(calls in calls()) {
            let [own, library] = both(&calls);
            prop_assert_eq!(own, library);
        }

        #[test]
        fn both_checkers_say_the_same_of_calls_that_nearly_can_be(calls in likely()) {
            let [own, library] = both(&calls);
            prop_assert_eq!(own, library);
            let calls: Vec<&Call> = calls.iter().collect();
            prop_assert_eq!(check_register(&calls).is_ok(), own);
        }
    }

    #[test]
    fn some_histories_can_be_and_some_cannot() {
        let mut runner = proptest::test_runner::TestRunner::deterministic();
        let mut count = [0, 0];
        for _ in 0..500 {
            let calls = likely().new_tree(&mut runner).unwrap().current();
            count[usize::from(both(&calls)[0])] += 1;
        }
        assert!(count.iter().all(|count| 50 < *count), "{count:?}");
    }
}
