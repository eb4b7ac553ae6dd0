//! Clients of all managers, and the book in which they note what they saw.
//!
//! A register is a service without tasks; its value is a label. Docker's API changes a service only
//! where the version is the one that was read, so that a write takes effect on that value alone.

use crate::chance::Chance;
use e2e::Lab;
use e2e::history::{Call, Outcome, Value, What};
use serde_json::Value as Json;
use std::collections::BTreeSet;
use std::fmt::Display;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

pub(crate) const REGISTERS: u64 = 4;
/// Longer than a manager waits for a leader and its answer.
const PATIENCE: Duration = Duration::from_secs(40);
/// Between two calls of a client, in milliseconds.
const PAUSE: (u64, u64) = (10, 120);

/// Versions of services, by their ids: what those who watch must have been told.
#[derive(Clone, Default)]
pub(crate) struct Versions {
    /// Somebody has read it.
    pub(crate) seen: BTreeSet<(String, u64)>,
    /// Somebody has written on it, and it was done.
    pub(crate) written_on: BTreeSet<(String, u64)>,
}

/// The history, line by line as it comes to be.
pub(crate) struct Book {
    file: Mutex<File>,
    versions: Mutex<Versions>,
    begun: Instant,
}

impl Book {
    #[expect(clippy::disallowed_methods, reason = "tests measure real time")]
    pub(crate) fn open(path: &Path) -> Self {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let (file, versions) = (Mutex::new(File::create(path).unwrap()), Mutex::default());
        Self { file, versions, begun: Instant::now() }
    }

    pub(crate) fn versions(&self) -> Versions {
        self.versions.lock().unwrap().clone()
    }

    pub(crate) fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_micros()).unwrap()
    }

    pub(crate) fn note(&self, line: impl Display) {
        writeln!(self.file.lock().unwrap(), "{line}").unwrap();
    }

    /// What is for people.
    pub(crate) fn tell(&self, line: impl Display) {
        self.note(format!("# {:>8.3} {line}", self.begun.elapsed().as_secs_f64()));
    }
}

/// A register, as it was read.
pub(crate) struct Seen {
    id: String,
    version: u64,
    spec: Json,
    pub(crate) value: Value,
}

pub(crate) struct Client<'a> {
    lab: &'a Lab,
    book: &'a Book,
    number: u64,
    written: u64,
}

pub(crate) fn create(lab: &Lab, register: u64) {
    let body = format!(
        r#"{{"Name":"register-{register}","Labels":{{"value":"0"}},"Mode":{{"Replicated":{{"Replicas":0}}}},
            "TaskTemplate":{{"ContainerSpec":{{"Image":"none:1"}}}}}}"#
    );
    let made = lab.try_to_ask(1, ("POST", "/services/create"), &body, PATIENCE).unwrap().unwrap();
    assert_eq!(made.status, 201, "{}", made.body);
}

impl<'a> Client<'a> {
    pub(crate) fn new(lab: &'a Lab, book: &'a Book, number: u64) -> Self {
        Self { lab, book, number, written: 0 }
    }

    /// Reads and writes until it is told to stop.
    pub(crate) fn run(mut self, mut chance: Chance, nodes: u8, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            let register = chance.below(REGISTERS);
            let seen = self.read(register, chance.node(nodes));
            if let Some(seen) = seen.filter(|_| chance.below(3) > 0) {
                self.write(register, &seen, chance.node(nodes));
            }
            std::thread::sleep(chance.millis(PAUSE.0, PAUSE.1));
        }
    }

    pub(crate) fn read(&self, register: u64, node: u8) -> Option<Seen> {
        let begun = self.book.now();
        let target = format!("/services/register-{register}");
        let answer = self.lab.try_to_ask(node, ("GET", &target), "", PATIENCE).ok()??;
        if answer.status == 404 {
            self.book.tell(format!("node {node} has lost register {register}: {}", answer.body));
            panic!("node {node} has lost register {register}: {}", answer.body);
        }
        let seen = (answer.status == 200).then(|| seen(&answer.body))??;
        let version = (seen.id.clone(), seen.version);
        self.book.versions.lock().unwrap().seen.insert(version);
        self.note((register, node, begun), What::Read(seen.value));
        Some(seen)
    }

    /// Writes a new value on one that was read.
    pub(crate) fn write(&mut self, register: u64, seen: &Seen, node: u8) -> Outcome {
        self.written += 1;
        let value = self.number * 1_000_000 + self.written;
        let mut spec = seen.spec.clone();
        spec["Labels"]["value"] = value.to_string().into();
        let target = format!("/services/{}/update?version={}", seen.id, seen.version);
        let begun = self.book.now();
        let answer = self.lab.try_to_ask(node, ("POST", &target), &spec.to_string(), PATIENCE);
        let outcome = match answer {
            Ok(Some(answer)) if answer.status == 200 => Outcome::Done,
            Ok(Some(answer)) if is_refusal(&answer.body) => Outcome::Refused,
            Err(error) if nobody_was_there(&error) => Outcome::Refused,
            Ok(_) | Err(_) => Outcome::Unknown,
        };
        if outcome == Outcome::Done {
            let version = (seen.id.clone(), seen.version);
            self.book.versions.lock().unwrap().written_on.insert(version);
        }
        self.note((register, node, begun), What::Write { on: seen.value, value, outcome });
        outcome
    }

    fn note(&self, (register, node, begun): (u64, u8, u64), what: What) {
        let (client, ended) = (self.number, self.book.now());
        self.book.note(Call { register, client, node, begun, ended, what });
    }
}

fn seen(body: &str) -> Option<Seen> {
    let service: Json = serde_json::from_str(body).ok()?;
    Some(Seen {
        id: service["ID"].as_str()?.to_owned(),
        version: service["Version"]["Index"].as_u64()?,
        value: service["Spec"]["Labels"]["value"].as_str()?.parse().ok()?,
        spec: service["Spec"].clone(),
    })
}

/// The answers that say that nothing was done.
fn is_refusal(body: &str) -> bool {
    ["update out of sequence", "does not have a leader"].iter().any(|words| body.contains(words))
}

fn nobody_was_there(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound)
}
