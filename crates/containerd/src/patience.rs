//! How a containerd that hangs is told from one that is busy.
//!
//! It is asked for its version, which it knows by heart. The pings of HTTP/2 would not do: Go's
//! servers end a connection that pings oftener than every five minutes.

use crate::client::Client;
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// How often a containerd is asked whether it answers, and how patient whoever asks is.
///
/// Times are those in which this process could wait, so a machine that slept takes at most one
/// question away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// Between an answer and the next question.
    pub every: Duration,
    /// For an answer to come.
    pub answer: Duration,
    /// A containerd of ours that has not answered so many questions, one after the other, hangs.
    pub missed: u32,
}

impl Patience {
    /// Half a minute until a containerd of ours is started again.
    pub const USUAL: Self =
        Self { every: Duration::from_secs(5), answer: Duration::from_secs(10), missed: 3 };
}

impl Default for Patience {
    fn default() -> Self {
        Self::USUAL
    }
}

impl Client {
    /// Returns when containerd has not answered `missed` questions one after the other.
    pub(crate) async fn silence(&self, patience: Patience, missed: u32) {
        silence(patience, missed, || async { self.ask_version().await.is_ok() }).await;
    }
}

async fn silence<F>(patience: Patience, missed: u32, ask: impl Fn() -> F)
where
    F: Future<Output = bool>,
{
    let mut unanswered = 0;
    while unanswered < missed {
        if unanswered == 0 {
            sleep(patience.every).await;
        }
        unanswered = match timeout(patience.answer, ask()).await {
            Ok(true) => 0,
            // It was refused at once, say.
            Ok(false) => {
                sleep(patience.every).await;
                unanswered + 1
            }
            Err(_elapsed) => unanswered + 1,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[tokio::test]
    async fn one_that_answers_at_times_is_busy() {
        let patience =
            Patience { every: Duration::ZERO, answer: Duration::from_mins(1), missed: 3 };
        let answers = Mutex::new(vec![false, false, false, true, false, false, true]);
        let ask = || {
            let answer = answers.lock().unwrap().pop().expect("it is asked no more");
            std::future::ready(answer)
        };
        silence(patience, patience.missed, ask).await;
        assert!(answers.lock().unwrap().is_empty());
    }
}
