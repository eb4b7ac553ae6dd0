//! One connection to each manager, which all calls to it share.
//!
//! A call has little time, and a busy machine may take longer than that to begin a connection. So what
//! was begun goes on with the next call: given up with each of them, it would never be there, and a
//! cluster whose machines are busy would lose its leader for good.

use crate::clock::Uptime;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use types::Fault;

/// A connection on which nothing was answered for so long hangs, and calls would hang with it. One late
/// answer says only that a machine is busy.
const SILENCE: Duration = Duration::from_secs(1);

/// Where a connection leads, and which of this manager's certificates it shows.
pub(super) type With = (String, u64);

/// A connection that is being opened, or is there.
pub(super) type Opening<C> = BoxFuture<'static, Result<C, Fault>>;

#[derive(Debug)]
pub(super) struct Pool<C>(Mutex<BTreeMap<u64, Open<C>>>);

#[derive(Debug)]
struct Open<C> {
    with: With,
    connection: Shared<Opening<C>>,
    /// When something was answered on it last, or nothing was for the first time.
    heard: Option<Uptime>,
}

impl<C> Default for Pool<C> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<C: Clone> Pool<C> {
    fn open(&self) -> MutexGuard<'_, BTreeMap<u64, Open<C>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection to a manager; what is under way on one that leads elsewhere ends there.
    pub(super) async fn get(
        &self,
        to: u64,
        with: With,
        open: impl FnOnce() -> Opening<C>,
    ) -> Result<C, Fault> {
        let connection = {
            let mut all = self.open();
            if let Some(known) = all.get(&to).filter(|open| open.with == with) {
                known.connection.clone()
            } else {
                let connection = open().shared();
                let new = Open { with, connection: connection.clone(), heard: None };
                all.insert(to, new);
                connection
            }
        };
        let opened = connection.clone().await;
        if opened.is_err() {
            // Another call may have begun the next one already.
            let mut all = self.open();
            if all.get(&to).is_some_and(|known| known.connection.ptr_eq(&connection)) {
                all.remove(&to);
            }
        }
        opened
    }

    /// Something was answered.
    pub(super) fn answered(&self, to: u64, now: Uptime) {
        if let Some(open) = self.open().get_mut(&to) {
            open.heard = Some(now);
        }
    }

    /// Nothing was answered in the time of a call.
    pub(super) fn late(&self, to: u64, now: Uptime) {
        let mut all = self.open();
        let Some(open) = all.get_mut(&to) else { return };
        // One that is being opened has a limit of its own.
        if open.connection.peek().is_none() {
            return;
        }
        if SILENCE <= now.since(*open.heard.get_or_insert(now)) {
            all.remove(&to);
        }
    }

    /// The next call opens a new one.
    pub(super) fn forget(&self, to: u64) {
        self.open().remove(&to);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::future::{pending, ready};
    use tokio::sync::oneshot;

    fn with() -> With {
        ("m:2377".to_owned(), 1)
    }

    fn at(millis: u64) -> Uptime {
        Uptime(Duration::from_millis(millis))
    }

    fn is(number: u8) -> Opening<u8> {
        ready(Ok(number)).boxed()
    }

    /// A busy machine needs longer for a connection than one call has.
    #[test]
    fn a_connection_that_is_begun_goes_on_with_the_next_call() {
        let pool = Pool::default();
        let (opened, wait) = oneshot::channel();
        let open = || wait.map(|it| it.map_err(|_gone| Fault::unavailable("no"))).boxed();
        assert!(pool.get(1, with(), open).now_or_never().is_none(), "the call's time is over");
        pool.late(1, at(0));
        assert!(pool.get(1, with(), || is(9)).now_or_never().is_none(), "nothing is begun anew");
        pool.late(1, at(5_000));
        opened.send(7).unwrap();
        assert_eq!(pool.get(1, with(), || is(9)).now_or_never(), Some(Ok(7)));
    }

    #[test]
    fn one_late_answer_costs_no_connection_and_silence_does() {
        let pool = Pool::default();
        let get = |number| pool.get(1, with(), move || is(number)).now_or_never().unwrap();
        assert_eq!(get(1), Ok(1));
        pool.late(1, at(100));
        pool.late(1, at(1_000));
        assert_eq!(get(2), Ok(1));
        pool.answered(1, at(1_050));
        pool.late(1, at(2_000));
        assert_eq!(get(3), Ok(1), "it was heard of");
        pool.late(1, at(2_050));
        assert_eq!(get(4), Ok(4), "it hangs");
    }

    #[test]
    fn what_failed_leads_elsewhere_or_broke_is_opened_anew() {
        let pool = Pool::default();
        let fails = || ready(Err(Fault::unavailable("refused"))).boxed();
        assert!(pool.get(1, with(), fails).now_or_never().unwrap().is_err());
        let get = |with, number| pool.get(1, with, move || is(number)).now_or_never().unwrap();
        assert_eq!(get(with(), 1), Ok(1));
        let moved = || ("m:2378".to_owned(), 1);
        assert_eq!(get(moved(), 2), Ok(2));
        pool.forget(1);
        assert_eq!(get(moved(), 3), Ok(3));
        assert!(pool.get(2, with(), || pending().boxed()).now_or_never().is_none());
        assert_eq!(get(moved(), 4), Ok(3), "others have their own");
    }
}
