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
pub struct Pace {
    /// Between an answer and the next question.
    pub every: Duration,
    /// For an answer to come.
    pub answer: Duration,
    /// A containerd of ours that has not answered so many questions, one after the other, hangs.
    pub missed: u32,
}

impl Pace {
    /// Half a minute until a containerd of ours is started again.
    pub const USUAL: Self =
        Self { every: Duration::from_secs(5), answer: Duration::from_secs(10), missed: 3 };
}

impl Default for Pace {
    fn default() -> Self {
        Self::USUAL
    }
}

impl Client {
    /// Returns when containerd has not answered `missed` questions one after the other.
    pub(crate) async fn silence(&self, pace: Pace, missed: u32) {
        silence(pace, missed, || async { self.ask_version().await.is_ok() }).await;
    }
}

async fn silence<F>(pace: Pace, missed: u32, ask: impl Fn() -> F)
where
    F: Future<Output = bool>,
{
    let mut unanswered = 0;
    while unanswered < missed {
        if unanswered == 0 {
            sleep(pace.every).await;
        }
        unanswered = match timeout(pace.answer, ask()).await {
            Ok(true) => 0,
            // It was refused at once, say.
            Ok(false) => {
                sleep(pace.every).await;
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
        let pace = Pace { every: Duration::ZERO, answer: Duration::from_secs(60), missed: 3 };
        let answers = Mutex::new(vec![false, false, false, true, false, false, true]);
        let ask = || {
            let answer = answers.lock().unwrap().pop().expect("it is asked no more");
            std::future::ready(answer)
        };
        silence(pace, pace.missed, ask).await;
        assert!(answers.lock().unwrap().is_empty());
    }
}
