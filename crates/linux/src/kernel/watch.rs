//! Hears when somebody else touches our rules, or the firewall that packets pass besides them.

use crate::error::{Error, chain};
use crate::netlink::{News, Watch};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;
use tokio::sync::Notify;

/// A firewall that is loaded anew makes many transactions; one repair after them is enough.
const QUIET: Duration = Duration::from_millis(20);
/// After a failure of the socket, which is not expected.
const PAUSE: Duration = Duration::from_secs(1);
/// Own transactions that are remembered: far more than fit into [`QUIET`].
const OWN_MAX: usize = 256;

/// What the kernel's thread and the one that hears share. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct ChangeListener {
    /// The generations that our own transactions made.
    own: Arc<Mutex<BTreeSet<u32>>>,
    disturbed: Arc<Notify>,
}

impl ChangeListener {
    /// Notes an own transaction.
    pub(crate) fn expect(&self, generation: u32) {
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        own.insert(generation);
        if own.len() > OWN_MAX {
            own.pop_first();
        }
    }

    /// Waits until others have touched something. Cancel-safe.
    pub(super) async fn disturbed(&self) {
        self.disturbed.notified().await;
    }

    /// Starts to listen, in the caller's namespace. Ends when nobody else has these any more.
    pub(super) fn open(&self, table: &'static str) -> Result<(), Error> {
        let mut watch = Watch::open(table)?;
        let listener = self.clone();
        let run = move || {
            while Arc::strong_count(&listener.disturbed) > 1 {
                listener.listen(&mut watch);
            }
        };
        let thread = thread::Builder::new().name("nft-watch".to_owned()).spawn(run);
        thread.map(drop).map_err(|source| Error::system("start a thread", source))
    }

    fn listen(&self, watch: &mut Watch) {
        let heard = match watch.wait() {
            Ok(heard) => heard,
            Err(error) => {
                tracing::warn!(error = chain(&error), "cannot hear of changes of the firewall");
                thread::sleep(PAUSE);
                return;
            }
        };
        if heard.is_empty() {
            return;
        }
        // Meanwhile our own thread notes what it has just done.
        thread::sleep(QUIET);
        let own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        if heard.iter().any(|news| is_foreign(news, &own)) {
            self.disturbed.notify_one();
        }
    }
}

fn is_foreign(news: &News, own: &BTreeSet<u32>) -> bool {
    let touched = news.inside || news.outside;
    touched && news.generation.is_none_or(|generation| !own.contains(&generation))
}
