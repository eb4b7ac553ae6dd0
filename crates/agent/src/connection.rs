//! The connection to a manager: one session at a time, opened anew for as long as the agent lives.
//!
//! [`crate::session`] decides; here is what it cannot know: streams, calls, clocks.

mod known;
mod open;
mod pause;
mod turns;

use crate::clock::{Clock, time_of_day};
use crate::report::Outbox;
use crate::session::{Ending, Lasting, Session, halfway};
use crate::worker::Event;
use crate::{Config, Error, Status};
use dataplane::Dataplane;
use engine::Engine;
pub use known::hear_of;
pub use pause::Pauses;
use pause::jittered;
use rand::RngExt;
use std::sync::Arc;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use turns::Turns;
use types::Timestamp;

/// What managers say of tasks.
#[derive(Debug)]
pub(crate) struct Inbound(pub(crate) Event);

/// Everything that survives a session.
pub(crate) struct Connection {
    config: Arc<Config>,
    engine: Engine,
    dataplane: Dataplane,
    inbound: mpsc::Sender<Inbound>,
    outbox: Outbox,
    status: watch::Sender<Status>,
    /// Cancelled when this node is about to leave: every session says so.
    leaving: CancellationToken,
    /// Cancelled when it goes for good: no session is opened any more.
    parting: CancellationToken,
    lasting: Lasting,
    turns: Turns,
    clock: Clock,
}

/// A session has ended.
#[derive(Debug)]
struct Over {
    ending: Ending,
    reason: String,
}

/// What to do, where it is this node's certificate that keeps it out.
fn explain((start, end): (Timestamp, Timestamp), now: Timestamp, reason: String) -> String {
    let why = if now < start {
        format!("does not hold before {}", start.rfc3339())
    } else if now >= end {
        format!("has expired on {}", end.rfc3339())
    } else {
        return reason;
    };
    format!(
        "this node's certificate {why}: leave the cluster (docker swarm leave --force) and join it \
         again with a token; or, if the date is wrong, set the clock ({reason})"
    )
}

impl Connection {
    pub(crate) fn new(
        (config, engine, dataplane): (Arc<Config>, Engine, Dataplane),
        (inbound, outbox, status): (mpsc::Sender<Inbound>, Outbox, watch::Sender<Status>),
        (leaving, parting): (CancellationToken, CancellationToken),
        clock: Clock,
    ) -> Result<Self, Error> {
        // Better now than at every attempt.
        ca::tls::client_config(&config.identity).map_err(Error::Identity)?;
        let renew_at = halfway(time_of_day(), config.identity.expires_at());
        Ok(Self {
            config,
            engine,
            dataplane,
            inbound,
            outbox,
            status,
            leaving,
            parting,
            lasting: Lasting { renew_at, ..Lasting::default() },
            turns: Turns::default(),
            clock,
        })
    }

    pub(crate) async fn run(mut self, token: CancellationToken) -> Result<(), Error> {
        let mut pauses = Pauses::default();
        while !self.parting.is_cancelled() {
            let over = tokio::select! {
                biased;
                () = token.cancelled() => return Ok(()),
                over = self.session() => over,
            };
            // Once for each reason: a manager may be away for long.
            let is_old = self.status.borrow().error == over.reason;
            if is_old || self.parting.is_cancelled() {
                tracing::debug!(reason = over.reason, "no session with a manager");
            } else {
                tracing::warn!(reason = over.reason, "no session with a manager");
            }
            self.status.send_modify(|status| {
                status.connected = false;
                status.error = over.reason;
            });
            let managers = self.status.borrow().managers.len();
            let pause = pauses.after(over.ending, managers);
            let pause = jittered(pause, rand::rng().random_range(0.7..1.3));
            tokio::select! {
                biased;
                () = token.cancelled() => return Ok(()),
                () = self.parting.cancelled() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
        token.cancelled().await;
        Ok(())
    }

    /// Opens a session with the next manager and serves it until it ends.
    async fn session(&mut self) -> Over {
        let managers = self.status.borrow().managers.clone();
        let Some(address) = self.turns.next(&managers) else {
            return Over { ending: Ending::Useless, reason: "no manager is known".to_owned() };
        };
        let mut carrier = match open::Carrier::open(self, &address).await {
            Ok(carrier) => carrier,
            Err(fault) => {
                let identity = &self.config.identity;
                let holds = (identity.starts_at(), identity.expires_at());
                let ending = Ending::of(&fault);
                return Over { ending, reason: explain(holds, time_of_day(), fault.message) };
            }
        };
        let vtep = self.config.data_path_address.unwrap_or(self.config.address);
        self.lasting.role = self.config.identity.role();
        let mut session = Session::begin(vtep, std::mem::take(&mut self.lasting), self.clock.now());
        let reason = carrier.serve(&mut session, self).await;
        let ending = session.ending();
        if ending == Ending::Useful && !session.is_silent() {
            // The same manager is asked first again.
            self.turns.again(address);
        }
        self.lasting = session.end();
        Over { ending, reason }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_whose_own_certificate_keeps_it_out_says_what_to_do() {
        let said = |now| explain((Timestamp(10), Timestamp(20)), Timestamp(now), "why".to_owned());
        for (now, what) in [(9, "does not hold before 1970"), (20, "has expired on 1970")] {
            let said = said(now);
            assert!(said.contains(what) && said.contains("docker swarm leave --force"), "{said}");
        }
        assert_eq!([said(10), said(19)], ["why", "why"]);
    }
}
