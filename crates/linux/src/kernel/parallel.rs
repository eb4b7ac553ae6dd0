//! Work that several processors share.

use std::num::NonZero;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

/// More do not help: much of the kernel's own work is done one after the other.
const THREADS: usize = 4;
/// Less than this is done before another thread has started.
const FEW: usize = 8;

/// Does `work` on all items and returns what it returned, in any order. Threads begin in the
/// namespace of the caller, which works as well: where none can be started, it does everything.
pub(super) fn in_parallel<T: Send, R: Send>(items: Vec<T>, work: impl Fn(T) -> R + Sync) -> Vec<R> {
    let processors = thread::available_parallelism().map_or(1, NonZero::get);
    let helpers = if items.len() < FEW { 0 } else { processors.min(THREADS) - 1 };
    let results = Mutex::new(Vec::with_capacity(items.len()));
    let items = Mutex::new(items);
    let run = || {
        let mut own = Vec::new();
        loop {
            // Not held while the work is done.
            let item = lock(&items).pop();
            let Some(item) = item else { break };
            own.push(work(item));
        }
        lock(&results).append(&mut own);
    };
    thread::scope(|scope| {
        for _ in 0..helpers {
            let thread = thread::Builder::new().name("kernel".to_owned());
            drop(thread.spawn_scoped(scope, run));
        }
        run();
    });
    results.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// Takes what is behind a lock, also after a panic of somebody who had it: that ends the scope.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_done_once_however_much_there_is() {
        for count in [0, 1, FEW, 1000] {
            let mut done = in_parallel((0..count).collect(), |item| item);
            done.sort_unstable();
            assert_eq!(done, (0..count).collect::<Vec<_>>());
        }
    }
}
