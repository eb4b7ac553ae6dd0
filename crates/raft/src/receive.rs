//! What a member answers to the messages of others.

use crate::consensus::{Consensus, Record, Snapshot};
use crate::disk::{encode, format_of};
use crate::free_space::FreeSpace;
use crate::message::{Call, Message, Partials};
use crate::sequencer::Node;
use openraft::EntryPayload;
use openraft::raft::AppendEntriesRequest;
use serde::Serialize;
use std::io;
use std::sync::{Mutex, PoisonError};
use store::Format;
use types::{Fault, FaultKind};

pub(crate) struct Receiver {
    member: u64,
    raft: Node,
    free_space: FreeSpace,
    partials: Mutex<Partials>,
}

impl Receiver {
    pub(crate) fn new(member: u64, raft: Node, free_space: FreeSpace) -> Self {
        Self { member, raft, free_space, partials: Mutex::default() }
    }

    /// Answers a message of the member `from`, who is known to be that member.
    pub(crate) async fn receive(&self, from: u64, body: &[u8]) -> Result<Vec<u8>, Fault> {
        let mut message = self.decode(body)?;
        if let Call::Piece(piece) = message.call {
            let whole = {
                // Nothing panics while it holds the lock; if it did, a message is sent again.
                let mut partials = self.partials.lock().unwrap_or_else(PoisonError::into_inner);
                partials.take(from, piece)?
            };
            let Some(whole) = whole else { return Ok(Vec::new()) };
            message = self.decode(&whole)?;
        }
        if message.call.sender() != Some(from) {
            return Err(Fault::forbidden(format!(
                "manager {from} speaks in the name of another manager"
            )));
        }
        self.answer(message.call).await
    }

    fn decode(&self, body: &[u8]) -> Result<Message, Fault> {
        let message = Message::decode(body)?;
        if message.to != self.member {
            let (to, member) = (message.to, self.member);
            let text = format!("a message for manager {to} has reached manager {member}");
            return Err(Fault::conflict(text));
        }
        Ok(message)
    }

    async fn answer(&self, call: Call) -> Result<Vec<u8>, Fault> {
        match call {
            Call::Append(request) => {
                self.admit(&request)?;
                encoded(&self.raft.append_entries(request).await.map_err(stopped)?)
            }
            Call::Vote(request) => encoded(&self.raft.vote(request).await.map_err(stopped)?),
            Call::PreVote(request) => encoded(&self.raft.pre_vote(request).await.map_err(stopped)?),
            Call::Snapshot { vote, meta, data } => {
                check(format_of(&data).map_err(|error| unreadable(&error))?)?;
                let snapshot = Snapshot { meta, snapshot: data };
                let installed = self.raft.install_full_snapshot(vote, snapshot).await;
                encoded(&installed.map_err(stopped)?)
            }
            Call::Transfer(request) => {
                encoded(&self.raft.handle_transfer_leader(request).await.map_err(stopped)?)
            }
            Call::Piece(_) => Err(Fault::invalid("a piece of a message is a piece itself")),
        }
    }

    /// Refuses entries that this manager would not understand when it applies them, and those for
    /// which its disk has no room: a write that fails stops the log, and the others can do without.
    fn admit(&self, request: &AppendEntriesRequest<Consensus>) -> Result<(), Fault> {
        if request.entries.is_empty() {
            return Ok(());
        }
        self.free_space.check_reserve()?;
        request.entries.iter().try_for_each(|entry| match &entry.payload {
            EntryPayload::Normal(Record { format, .. }) => check(*format),
            EntryPayload::Blank | EntryPayload::Membership(_) => Ok(()),
        })
    }
}

fn check(format: Format) -> Result<(), Fault> {
    if format.is_known() {
        return Ok(());
    }
    let text = format!(
        "the leader writes format {format}, and this manager reads formats up to {}: update it",
        Format::PRESENT
    );
    Err(Fault::new(FaultKind::Incompatible, text))
}

fn encoded<T: Serialize>(answer: &T) -> Result<Vec<u8>, Fault> {
    encode(answer).map_err(|error| Fault::internal(format!("cannot write an answer: {error}")))
}

fn unreadable(error: &io::Error) -> Fault {
    Fault::invalid(format!("cannot read a snapshot: {error}"))
}

fn stopped(error: impl std::fmt::Display) -> Fault {
    Fault::unavailable(format!("the log of this manager has stopped: {error}"))
}
