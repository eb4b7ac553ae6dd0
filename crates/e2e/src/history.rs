//! What clients of several managers saw, and whether it can be so: whether there is one order of all
//! that was done in which each call stands between its beginning and its end (linearizability).
//!
//! Clients read and write registers. A write says which value it has read before, and takes effect
//! only on that one; every value is written by one call alone. So the values of a register have one
//! order, in which each follows from the one before, and the question is only whether it keeps to the
//! time of the calls. Of a call that got no clear answer nobody knows whether it was done: it was
//! where its value has been seen.
//!
//! That is looked through in linear time, so a quarter of an hour is checked in a moment, and what is wrong
//! is named. `search` has a second opinion by a library's checker, and a property holds both equal.
//!
//! A history is lines of text, so that it can be kept, read and checked again.

mod search;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

/// A value of a register; 0 is what it begins with.
pub type Value = u64;

/// One call of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    pub register: u64,
    pub client: u64,
    /// The node that was asked.
    pub node: u8,
    /// In microseconds, by a clock that all share.
    pub begun: u64,
    pub ended: u64,
    pub what: What,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// A read that was answered.
    Read(Value),
    /// A write on a value that was read before.
    Write { on: Value, value: Value, outcome: Outcome },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Done,
    /// Nothing was done.
    Refused,
    Unknown,
}

impl Call {
    /// A write that was done.
    pub fn is_done(&self) -> bool {
        matches!(self.what, What::Write { outcome: Outcome::Done, .. })
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { register, client, node, begun, ended, what } = self;
        write!(f, "register {register} client {client} node {node} from {begun} to {ended} ")?;
        match what {
            What::Read(value) => write!(f, "read {value}"),
            What::Write { on, value, outcome } => {
                let outcome = match outcome {
                    Outcome::Done => "done",
                    Outcome::Refused => "refused",
                    Outcome::Unknown => "unknown",
                };
                write!(f, "wrote {value} on {on} {outcome}")
            }
        }
    }
}

impl FromStr for Call {
    type Err = String;

    fn from_str(line: &str) -> Result<Self, String> {
        let wrong = || format!("not a call: {line}");
        let words: Vec<&str> = line.split_whitespace().collect();
        let number = |at: usize| words.get(at).and_then(|word| word.parse::<u64>().ok());
        let number = |at: usize| number(at).ok_or_else(wrong);
        let what = match *words.get(10..).unwrap_or_default() {
            ["read", _] => What::Read(number(11)?),
            ["wrote", _, "on", _, outcome] => {
                let outcome = match outcome {
                    "done" => Outcome::Done,
                    "refused" => Outcome::Refused,
                    "unknown" => Outcome::Unknown,
                    _ => return Err(wrong()),
                };
                What::Write { on: number(13)?, value: number(11)?, outcome }
            }
            _ => return Err(wrong()),
        };
        let node = u8::try_from(number(5)?).map_err(|_large| wrong())?;
        let (register, client, begun, ended) = (number(1)?, number(3)?, number(7)?, number(9)?);
        Ok(Self { register, client, node, begun, ended, what })
    }
}

/// Reads the calls of a history; lines that begin with `#` are for people.
///
/// # Errors
/// Says which line is none.
pub fn read(text: &str) -> Result<Vec<Call>, String> {
    text.lines().filter(|line| !line.starts_with('#')).map(str::parse).collect()
}

/// Says why a history cannot be.
///
/// # Errors
/// With the calls that contradict each other.
pub fn check(calls: &[Call]) -> Result<(), String> {
    let mut registers: BTreeMap<u64, Vec<&Call>> = BTreeMap::new();
    for call in calls {
        registers.entry(call.register).or_default().push(call);
    }
    registers.values().try_for_each(|calls| check_register(calls))
}

/// What follows from what is special here names the calls that contradict each other; the library says
/// the same, or one of the two is wrong.
fn check_register(calls: &[&Call]) -> Result<(), String> {
    in_one_order(calls)?;
    if search::finds_order(calls) {
        return Ok(());
    }
    Err(format!("the library's checker finds no order of {} calls", calls.len()))
}

fn in_one_order(calls: &[&Call]) -> Result<(), String> {
    let places = places(calls)?;
    let mut all = Vec::new();
    for call in calls {
        let (value, is_write) = match call.what {
            What::Read(value) => (value, false),
            What::Write { value, outcome: Outcome::Done, .. } => (value, true),
            What::Write { value, outcome: Outcome::Refused, .. } => {
                if places.contains_key(&value) {
                    return Err(format!("it was refused, and is there: {call}"));
                }
                continue;
            }
            // It had its place after it began at the earliest.
            What::Write { value, outcome: Outcome::Unknown, .. } => {
                if let Some(place) = places.get(&value) {
                    all.push((*call, *place, true, u64::MAX));
                }
                continue;
            }
        };
        let place = *places.get(&value).ok_or_else(|| format!("it was lost: {call}"))?;
        all.push((*call, place, is_write, call.ended));
    }
    in_time(all)
}

/// A call with the place of its value, whether it wrote that, and when it was over.
type Placed<'a> = (&'a Call, usize, bool, u64);

/// Whoever begins after another one has ended sees at least what that one saw.
fn in_time(mut all: Vec<Placed<'_>>) -> Result<(), String> {
    let mut ended = all.clone();
    ended.sort_by_key(|(.., ended)| *ended);
    all.sort_by_key(|(call, ..)| call.begun);
    let mut ended = ended.into_iter().peekable();
    let mut newest: Option<(&Call, usize)> = None;
    for (call, place, is_write, _) in all {
        while let Some((other, at, ..)) = ended.next_if(|(.., ended)| *ended < call.begun) {
            if newest.is_none_or(|(_, newest)| newest < at) {
                newest = Some((other, at));
            }
        }
        if let Some((before, at)) = newest
            && (place < at || (is_write && place == at))
        {
            return Err(format!("what came later saw what was before:\n{before}\n{call}"));
        }
    }
    Ok(())
}

/// The place of each value that a register has had: each was written on the one before.
fn places(calls: &[&Call]) -> Result<BTreeMap<Value, usize>, String> {
    let mut written: BTreeMap<Value, &Call> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for call in calls {
        match call.what {
            What::Read(value) => {
                seen.insert(value);
            }
            What::Write { on, value, outcome } => {
                if written.insert(value, call).is_some() || value == 0 {
                    return Err(format!("two calls write the same value: {call}"));
                }
                if outcome == Outcome::Done {
                    seen.extend([on, value]);
                }
            }
        }
    }
    // What was seen was written, and so was what that was written on.
    let mut next: BTreeMap<Value, &Call> = BTreeMap::new();
    let mut open: Vec<Value> = seen.into_iter().collect();
    while let Some(value) = open.pop() {
        if value == 0 {
            continue;
        }
        let call = *written.get(&value).ok_or_else(|| format!("nobody has written {value}"))?;
        let What::Write { on, .. } = call.what else { continue };
        match next.insert(on, call) {
            None => open.push(on),
            Some(other) if other == call => {}
            Some(other) => return Err(format!("both were written on {on}:\n{other}\n{call}")),
        }
    }
    let (mut places, mut last) = (BTreeMap::from([(0, 0)]), 0);
    while let Some(Call { what: What::Write { value, .. }, .. }) = next.get(&last) {
        places.insert(*value, places.len());
        last = *value;
    }
    Ok(places)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Calls as `register from to what`.
    fn history(text: &str) -> Vec<Call> {
        let line = |line: &str| {
            let mut words = line.splitn(3, ' ');
            let (from, to) = (words.next().unwrap(), words.next().unwrap());
            let what = words.next().unwrap();
            format!("register 1 client 1 node 1 from {from} to {to} {what}").parse().unwrap()
        };
        text.lines().map(|it| line(it.trim())).collect()
    }

    fn says(text: &str) -> String {
        check(&history(text)).err().unwrap_or_default()
    }

    #[test]
    fn what_is_written_is_read_again() {
        let calls = history(
            "1 2 read 0\n3 4 wrote 7 on 0 done\n5 6 wrote 8 on 7 unknown\n7 9 wrote 9 on 7 refused",
        );
        let text: Vec<String> = calls.iter().map(ToString::to_string).collect();
        assert_eq!(read(&("# for people\n".to_owned() + &text.join("\n"))).unwrap(), calls);
        assert!(read("register 1 client").is_err());
    }

    #[test]
    fn histories_that_can_be() {
        assert_eq!(says("1 2 read 0\n3 4 wrote 1 on 0 done\n5 6 read 1"), "");
        assert_eq!(says("1 9 wrote 1 on 0 done\n2 3 read 0\n4 5 read 1\n6 7 read 1"), "");
        // Nobody knows whether it was done, until somebody sees it; even long after.
        assert_eq!(says("1 2 wrote 1 on 0 unknown\n3 4 read 0\n5 6 wrote 2 on 0 done"), "");
        assert_eq!(says("1 2 wrote 1 on 0 unknown\n3 4 read 0\n5 6 read 1"), "");
        assert_eq!(says("1 2 wrote 1 on 0 unknown\n3 4 wrote 2 on 1 done\n5 6 read 2"), "");
    }

    #[test]
    fn histories_that_cannot_be() {
        let lost = says("1 2 wrote 1 on 0 done\n3 4 wrote 2 on 0 done");
        assert!(lost.contains("both were written on 0"), "{lost}");
        let stale = says("1 2 wrote 1 on 0 done\n3 4 read 0");
        assert!(stale.contains("later saw what was before"), "{stale}");
        let back = says("1 9 wrote 1 on 0 done\n2 3 read 1\n4 5 read 0");
        assert!(back.contains("later saw what was before"), "{back}");
        let early = says("1 2 read 1\n3 4 wrote 1 on 0 done");
        assert!(early.contains("later saw what was before"), "{early}");
        let refused = says("1 2 wrote 1 on 0 refused\n3 4 read 1");
        assert!(refused.contains("it was refused"), "{refused}");
        let made_up = says("1 2 read 5");
        assert!(made_up.contains("nobody has written 5"), "{made_up}");
        let gone = says("1 2 wrote 3 on 2 done\n3 4 wrote 2 on 1 unknown\n5 6 read 0");
        assert!(gone.contains("nobody has written 1"), "{gone}");
    }
}
