//! Clients that ask as fast as they are answered.

use std::path::Path;
use std::time::{Duration, Instant};

/// Clients at once: enough to keep two cores busy.
const CLIENTS: usize = 8;
/// How long one measurement takes.
const TIME: Duration = Duration::from_secs(2);

/// Runs clients inside the namespace at `netns`; returns answers per second. Each client is made
/// by `make` and then asked again and again until the time is over.
pub(crate) fn rate<C>(
    netns: &Path,
    make: impl Fn() -> C + Sync,
    ask: impl Fn(&mut C) + Sync,
) -> f64 {
    let answers: u64 = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| {
                scope.spawn(|| {
                    linux::run_in(netns, || count(&make, &ask)).expect("the namespace is there")
                })
            })
            .collect();
        clients.into_iter().map(|client| client.join().expect("a client ends")).sum()
    });
    #[expect(clippy::cast_precision_loss, reason = "rates are far below 2^52")]
    let rate = answers as f64 / TIME.as_secs_f64();
    rate
}

#[expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
fn count<C>(make: &impl Fn() -> C, ask: &impl Fn(&mut C)) -> u64 {
    let mut client = make();
    let (start, mut answers) = (Instant::now(), 0);
    while start.elapsed() < TIME {
        ask(&mut client);
        answers += 1;
    }
    answers
}
