//! What managers' logs say to each other, and how it is encoded.
//!
//! A message names the member it is meant for: an address that moved to another manager must not
//! make that one vote in the name of the former. What is too large for one call is sent in pieces,
//! which the receiver puts together again.

use crate::consensus::{Consensus, SnapshotMeta, Vote};
use crate::disk::{bytes, decode, encode};
use openraft::raft::{AppendEntriesRequest, TransferLeaderRequest, VoteRequest};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use types::{Fault, FaultKind};

/// The form that messages have. It rises with every change that a former release would take for
/// something else.
const FORMAT: u32 = 1;

/// What one call carries at most, besides a few words around it.
pub(crate) const PIECE_BYTES: usize = 1 << 20;

/// What a receiver keeps of messages that are not whole yet. A larger message is refused.
const KEPT_BYTES: u64 = 1 << 30;

#[derive(Serialize, Deserialize)]
pub(crate) struct Message {
    format: u32,
    /// The member that it is meant for.
    pub(crate) to: u64,
    pub(crate) call: Call,
}

/// The part of a message that is read whatever its format.
#[derive(Deserialize)]
struct Said {
    format: u32,
}

#[derive(Serialize, Deserialize)]
pub(crate) enum Call {
    Append(AppendEntriesRequest<Consensus>),
    Vote(VoteRequest<Consensus>),
    PreVote(VoteRequest<Consensus>),
    Snapshot {
        vote: Vote,
        meta: SnapshotMeta,
        #[serde(with = "types::octets")]
        data: Vec<u8>,
    },
    Transfer(TransferLeaderRequest<Consensus>),
    Piece(Piece),
}

/// A part of a message.
#[derive(Serialize, Deserialize)]
pub(crate) struct Piece {
    /// Which message of this sender it is a part of.
    transfer: u64,
    /// Where it begins.
    at: u64,
    /// Bytes of the whole.
    whole: u64,
    #[serde(with = "types::octets")]
    data: Vec<u8>,
}

impl Message {
    pub(crate) fn encode(to: u64, call: Call) -> io::Result<Vec<u8>> {
        encode(&Self { format: FORMAT, to, call })
    }

    pub(crate) fn decode(body: &[u8]) -> Result<Self, Fault> {
        let wrong = |error: io::Error| Fault::invalid(format!("cannot read a message: {error}"));
        let Said { format } = decode(body).map_err(wrong)?;
        if FORMAT < format {
            let text = format!(
                "a manager of a newer release speaks format {format}, and this release up to {FORMAT}"
            );
            return Err(Fault::new(FaultKind::Incompatible, text));
        }
        decode(body).map_err(wrong)
    }
}

impl Call {
    /// The member in whose name it is said; a piece says nothing by itself.
    pub(crate) fn sender(&self) -> Option<u64> {
        let vote = match self {
            Self::Append(request) => request.vote,
            Self::Vote(request) | Self::PreVote(request) => request.vote,
            Self::Snapshot { vote, .. } => *vote,
            Self::Transfer(request) => *request.from_leader(),
            Self::Piece(_) => return None,
        };
        Some(vote.leader_id.voted_for)
    }
}

/// The pieces of a message, in the order in which they are to be sent.
pub(crate) fn pieces(transfer: u64, message: &[u8]) -> impl Iterator<Item = Piece> + '_ {
    let whole = bytes(message);
    message.chunks(PIECE_BYTES).zip(0_u64..).map(move |(data, number)| Piece {
        transfer,
        at: number * PIECE_BYTES as u64,
        whole,
        data: data.to_vec(),
    })
}

/// Messages that are not whole yet: one of each sender, as each sends one at a time.
#[derive(Default)]
pub(crate) struct Partials(BTreeMap<u64, Partial>);

struct Partial {
    transfer: u64,
    data: Vec<u8>,
}

impl Partials {
    /// Takes a piece in; returns the message when it is whole.
    pub(crate) fn take(&mut self, from: u64, piece: Piece) -> Result<Option<Vec<u8>>, Fault> {
        if KEPT_BYTES < piece.whole {
            self.0.remove(&from);
            return Err(Fault::invalid(format!("a message of {} bytes is too large", piece.whole)));
        }
        if piece.at == 0 {
            self.0.insert(from, Partial { transfer: piece.transfer, data: Vec::new() });
        }
        let Some(partial) = self.0.get_mut(&from).filter(|partial| {
            partial.transfer == piece.transfer && bytes(&partial.data) == piece.at
        }) else {
            return Err(Fault::conflict("a piece of a message is missing: send it again"));
        };
        partial.data.extend(piece.data);
        if bytes(&partial.data) < piece.whole {
            if KEPT_BYTES < self.0.values().map(|partial| bytes(&partial.data)).sum() {
                // What others began has stopped long ago, or they send it again.
                self.0.retain(|sender, _| *sender == from);
            }
            return Ok(None);
        }
        Ok(self.0.remove(&from).map(|partial| partial.data))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_make_the_whole_again_and_a_missing_one_is_noticed() {
        let message: Vec<u8> = (0..=u8::MAX).cycle().take(2 * PIECE_BYTES + 5).collect();
        let mut partials = Partials::default();
        let mut first = pieces(1, &message);
        assert_eq!(partials.take(7, first.next().unwrap()), Ok(None));
        let mut second = pieces(2, &message);
        assert_eq!(partials.take(7, second.next().unwrap()), Ok(None), "it begins anew");
        assert!(partials.take(7, first.next().unwrap()).is_err(), "of the one that was given up");
        assert_eq!(partials.take(8, pieces(1, &[3]).next().unwrap()), Ok(Some(vec![3])));
        assert_eq!(partials.take(7, second.next().unwrap()), Ok(None));
        assert_eq!(partials.take(7, second.next().unwrap()), Ok(Some(message.clone())));
        assert!(partials.take(7, pieces(3, &message).nth(1).unwrap()).is_err());
        let huge = Piece { transfer: 4, at: 0, whole: KEPT_BYTES + 1, data: Vec::new() };
        assert!(partials.take(7, huge).is_err());
        assert!(partials.0.is_empty(), "nothing is left over");
    }

    #[test]
    fn a_message_of_a_newer_format_is_refused_in_words() {
        let call = Call::Piece(pieces(1, &[3]).next().unwrap());
        let newer = encode(&Message { format: FORMAT + 1, to: 2, call }).unwrap();
        let refused = Message::decode(&newer).err().unwrap();
        assert_eq!(refused.kind, FaultKind::Incompatible);
    }
}
