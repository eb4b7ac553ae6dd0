//! One who follows `/events` of the cluster for as long as it takes: whenever the answer ends, it asks
//! again for what came after the last event that it has. And the checks of what such a watch has seen.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// Before a daemon that is away is asked again.
const PAUSE: Duration = Duration::from_millis(50);

/// An event of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// `timeNano`.
    pub time: i64,
    pub kind: String,
    pub action: String,
    pub id: String,
    /// The entry of the log.
    pub version: u64,
}

/// What a watch has seen so far.
#[derive(Clone, Debug, Default)]
pub struct Watched {
    pub events: Vec<Seen>,
    /// How often it had to ask.
    pub asked: usize,
    /// Why it is not whole.
    pub gap: Option<String>,
}

#[derive(Default)]
struct Shared {
    watched: Mutex<Watched>,
    stop: AtomicBool,
    /// The connection of now.
    stream: Mutex<Option<UnixStream>>,
}

/// A watch that goes on in the background.
pub struct Watcher {
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
}

impl Watcher {
    /// Follows by the socket that `choose` names for the so-many-th time it asks.
    pub fn start(choose: impl Fn(usize) -> PathBuf + Send + 'static) -> Self {
        let shared = Arc::new(Shared::default());
        let own = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            while !own.stop.load(Ordering::Relaxed) {
                let asked = {
                    let mut watched = own.watched();
                    watched.asked += 1;
                    watched.asked
                };
                // However it ends: it is asked again.
                if own.follow(&choose(asked)).is_err() {
                    std::thread::sleep(PAUSE);
                }
            }
        });
        Self { shared, thread }
    }

    /// What it has seen so far.
    pub fn watched(&self) -> Watched {
        self.shared.watched().clone()
    }

    /// Breaks the connection: it asks again.
    pub fn shake(&self) {
        if let Some(stream) = &*self.shared.stream() {
            drop(stream.shutdown(Shutdown::Both));
        }
    }

    /// Ends it.
    ///
    /// # Panics
    /// When the watch did.
    pub fn stop(self) -> Watched {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.shake();
        self.thread.join().expect("a watch does not panic");
        let watched = self.shared.watched();
        watched.clone()
    }
}

impl Shared {
    fn watched(&self) -> MutexGuard<'_, Watched> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stream(&self) -> MutexGuard<'_, Option<UnixStream>> {
        self.stream.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks once, and reads as long as something comes.
    fn follow(&self, socket: &Path) -> io::Result<()> {
        let mut stream = UnixStream::connect(socket)?;
        *self.stream() = Some(stream.try_clone()?);
        if self.stop.load(Ordering::Relaxed) {
            return Ok(());
        }
        let last = self.watched().events.last().map_or(0, |event| event.time);
        let since = format!("{}.{:09}", (last + 1) / 1_000_000_000, (last + 1) % 1_000_000_000);
        let filters = "%7B%22scope%22%3A%5B%22swarm%22%5D%7D";
        let target = format!("/events?since={since}&filters={filters}");
        write!(stream, "GET {target} HTTP/1.1\r\nHost: docker\r\n\r\n")?;
        let mut answer = BufReader::new(stream);
        let mut headers = Vec::new();
        loop {
            let line = line(&mut answer)?;
            if line.is_empty() {
                break;
            }
            headers.push(line.to_ascii_lowercase());
        }
        if headers.first().is_none_or(|status| !status.contains(" 200 ")) {
            return Err(io::Error::other(headers.concat()));
        }
        let whole = headers.iter().find_map(|it| it.strip_prefix("skep-events-whole-after: "));
        let whole = whole.and_then(nanos).ok_or_else(|| io::Error::other("no header"))?;
        if last < whole {
            self.watched().gap = Some(format!("asked after {last}, whole after {whole}"));
        }
        let mut text = String::new();
        loop {
            let size = line(&mut answer)?;
            let size = usize::from_str_radix(&size, 16).map_err(io::Error::other)?;
            let mut chunk = vec![0; size + 2];
            answer.read_exact(&mut chunk)?;
            if size == 0 {
                return Err(io::Error::other("it ended without a reason"));
            }
            text.push_str(&String::from_utf8_lossy(&chunk[..size]));
            while let Some((line, rest)) = text.split_once('\n') {
                self.take(line)?;
                text = rest.to_owned();
            }
        }
    }

    fn take(&self, line: &str) -> io::Result<()> {
        let event: Value = serde_json::from_str(line)?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let attributes = &event["Actor"]["Attributes"];
        let mut watched = self.watched();
        if event["Action"] == "watch_end" {
            let reason = text(&attributes["reason"]);
            if reason.contains("are lost") {
                watched.gap = Some(reason.clone());
            }
            return Err(io::Error::other(reason));
        }
        let version = attributes["version"].as_str().and_then(|text| text.parse().ok());
        watched.events.push(Seen {
            time: event["timeNano"].as_i64().unwrap_or_default(),
            kind: text(&event["Type"]),
            action: text(&event["Action"]),
            id: text(&event["Actor"]["ID"]),
            version: version.unwrap_or_default(),
        });
        Ok(())
    }
}

fn line(answer: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    if answer.read_line(&mut line)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(line.trim_end().to_owned())
}

fn nanos(text: &str) -> Option<i64> {
    let (seconds, nanos) = text.split_once('.')?;
    Some(seconds.parse::<i64>().ok()? * 1_000_000_000 + nanos.parse::<i64>().ok()?)
}

/// Says why a watch cannot be all that has happened: it is to have each of these versions of objects
/// once, in the order of the log, and one more event of the object after each that somebody has written
/// on with success.
///
/// # Errors
/// With what is missing, or what is there that must not be.
pub fn check(
    watched: &Watched,
    seen: &BTreeSet<(String, u64)>,
    written_on: &BTreeSet<(String, u64)>,
) -> Result<(), String> {
    if let Some(gap) = &watched.gap {
        return Err(format!("there is a gap: {gap}"));
    }
    let mut versions: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    for pair in watched.events.windows(2) {
        let [before, after] = pair else { continue };
        if after.time <= before.time || after.version < before.version {
            return Err(format!("{after:?} comes after {before:?}"));
        }
    }
    for event in &watched.events {
        let versions = versions.entry(&event.id).or_default();
        // A node may have changed, and lead, by one entry.
        if versions.last() == Some(&event.version) && event.kind != "node" {
            return Err(format!("{event:?} is there twice"));
        }
        versions.push(event.version);
    }
    let of = |id: &str| versions.get(id).map_or(&[][..], Vec::as_slice);
    for (id, version) in seen {
        if !of(id).contains(version) {
            return Err(format!("version {version} of {id} is missing: {:?}", of(id)));
        }
    }
    for (id, version) in written_on {
        if of(id).iter().all(|next| next <= version) {
            return Err(format!("the write on version {version} of {id} is missing: {:?}", of(id)));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watched(events: &[(i64, &str, u64)]) -> Watched {
        let event = |(time, id, version): &(i64, &str, u64)| Seen {
            time: *time,
            kind: "service".into(),
            action: "update".into(),
            id: (*id).to_owned(),
            version: *version,
        };
        Watched { events: events.iter().map(event).collect(), ..Watched::default() }
    }

    fn checked(watched: &Watched, seen: &[u64], written_on: &[u64]) -> Result<(), String> {
        let of = |versions: &[u64]| versions.iter().map(|it| ("a".to_owned(), *it)).collect();
        check(watched, &of(seen), &of(written_on))
    }

    #[test]
    fn what_is_missing_twice_or_out_of_order_is_found() {
        let whole = watched(&[(1, "a", 5), (2, "b", 5), (7, "a", 9)]);
        assert_eq!(checked(&whole, &[5, 9], &[5]), Ok(()));
        let wrong = |watched: &Watched, seen: &[u64], written_on: &[u64], why: &str| {
            let found = checked(watched, seen, written_on).unwrap_err();
            assert!(found.contains(why), "{found}");
        };
        wrong(&whole, &[6], &[], "version 6 of a is missing");
        wrong(&whole, &[], &[9], "the write on version 9 of a is missing");
        wrong(&watched(&[(1, "a", 5), (2, "a", 5)]), &[], &[], "twice");
        wrong(&watched(&[(2, "a", 5), (1, "b", 6)]), &[], &[], "comes after");
        wrong(&watched(&[(1, "a", 5), (2, "b", 4)]), &[], &[], "comes after");
        let gap = Watched { gap: Some("lost".into()), ..whole };
        wrong(&gap, &[], &[], "gap");
    }

    #[test]
    fn times_have_nine_digits() {
        assert_eq!(nanos("2.000000007"), Some(2_000_000_007));
        assert_eq!(nanos("2"), None);
    }
}
