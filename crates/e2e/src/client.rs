//! A client that asks at a steady pace and forgives nothing.

use crate::http::page;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The pace: ten requests a second.
const PERIOD: Duration = Duration::from_millis(100);
/// A request that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(10);
/// Requests on their way at once.
const WORKERS: usize = 8;

/// A running client. Requests start every 100 ms, whether or not earlier ones were answered.
pub struct Client {
    stop: Arc<AtomicBool>,
    workers: Vec<JoinHandle<Seen>>,
}

/// What a client saw.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    pub requests: usize,
    /// When (since the start) and how each failed.
    pub failures: Vec<(Duration, String)>,
    pub slowest: Duration,
}

impl Client {
    /// Starts asking `address` for `path`, expecting `status`.
    #[expect(clippy::disallowed_methods, reason = "tests measure real time")]
    pub fn start(address: &str, path: &str, status: u16) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let start = Instant::now();
        // Each worker takes every eighth beat, so that one slow answer does not hold up the rest.
        let workers = (0..WORKERS)
            .map(|worker| {
                let (stop, address, path) =
                    (Arc::clone(&stop), address.to_owned(), path.to_owned());
                std::thread::spawn(move || {
                    let mut seen = Seen::default();
                    for beat in (worker..).step_by(WORKERS) {
                        let due = start + PERIOD * u32::try_from(beat).unwrap_or(u32::MAX);
                        std::thread::sleep(due.saturating_duration_since(Instant::now()));
                        if stop.load(Ordering::Relaxed) {
                            break;
                        }
                        seen.ask(&address, &path, status, start);
                    }
                    seen
                })
            })
            .collect();
        Self { stop, workers }
    }

    /// Stops asking and tells what was seen.
    ///
    /// # Panics
    /// When a worker did.
    pub fn stop(self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Seen::default();
        for worker in self.workers {
            let seen = worker.join().expect("a client does not panic");
            all.requests += seen.requests;
            all.failures.extend(seen.failures);
            all.slowest = all.slowest.max(seen.slowest);
        }
        all.failures.sort();
        all
    }
}

impl Seen {
    #[expect(clippy::disallowed_methods, reason = "tests measure real time")]
    fn ask(&mut self, address: &str, path: &str, status: u16, start: Instant) {
        let asked = Instant::now();
        let answer = page(address, path, PATIENCE);
        self.requests += 1;
        self.slowest = self.slowest.max(asked.elapsed());
        let failure = match answer {
            Ok(page) if page.status == status => return,
            Ok(page) => format!("status {}", page.status),
            Err(error) => error.to_string(),
        };
        self.failures.push((asked.duration_since(start), failure));
    }
}
