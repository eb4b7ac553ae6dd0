//! How managers' logs reach each other: the requests of the consensus library as messages.

use crate::consensus::{Consensus, Member, Snapshot, SnapshotData, Vote};
use crate::disk::decode;
use crate::message::{Call, Message, PIECE_BYTES, pieces};
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::RPCOption;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{OptionalSend, RaftNetworkFactory, RaftNetworkV2};
use serde::de::DeserializeOwned;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use types::Fault;

/// How long a manager may take to write entries to its disk. While it is cut off, the next ones
/// reach it so much later.
const WRITE_LIMIT: Duration = Duration::from_millis(1500);
/// How long it may take over a piece of a message.
const PIECE_LIMIT: Duration = Duration::from_secs(5);
/// How long it may take over the last piece of a large message: it writes the whole.
const WHOLE_LIMIT: Duration = Duration::from_mins(1);

/// How managers' logs reach each other.
pub trait Peers: Clone + Send + Sync + 'static {
    /// Brings a message to a member, to [`Sequencer::receive`](crate::Sequencer::receive) there, and
    /// returns its answer. Fails when there is none within `limit`.
    fn call(
        &self,
        to: u64,
        body: Vec<u8>,
        limit: Duration,
    ) -> impl Future<Output = Result<Vec<u8>, Fault>> + Send;
}

/// Reaches nobody: for a log that has one member.
#[derive(Clone, Copy, Debug)]
pub struct Alone;

impl Peers for Alone {
    async fn call(&self, to: u64, _body: Vec<u8>, _limit: Duration) -> Result<Vec<u8>, Fault> {
        Err(Fault::unavailable(format!("this manager does not reach manager {to}")))
    }
}

/// The library's way to the others.
pub(crate) struct Network<P> {
    peers: P,
    /// Numbers the messages that are sent in pieces.
    transfers: Arc<AtomicU64>,
}

impl<P> Network<P> {
    pub(crate) fn new(peers: P) -> Self {
        Self { peers, transfers: Arc::default() }
    }
}

impl<P: Peers> RaftNetworkFactory<Consensus> for Network<P> {
    type Network = Link<P>;

    async fn new_client(&mut self, target: u64, _member: &Member) -> Link<P> {
        Link { peers: self.peers.clone(), to: target, transfers: Arc::clone(&self.transfers) }
    }
}

/// The way to one of them.
pub(crate) struct Link<P> {
    peers: P,
    to: u64,
    transfers: Arc<AtomicU64>,
}

impl<P: Peers> Link<P> {
    /// A member that cannot be reached, does not answer in time, or refuses, is left alone for a
    /// while: the library tries again with growing pauses.
    async fn call<R: DeserializeOwned>(
        &self,
        call: Call,
        limit: Duration,
    ) -> Result<R, Unreachable<Consensus>> {
        let body = Message::encode(self.to, call).map_err(unreachable)?;
        let answer = if body.len() <= PIECE_BYTES {
            self.send(body, limit).await?
        } else {
            self.send_in_pieces(&body).await?
        };
        decode(&answer).map_err(unreachable)
    }

    async fn send_in_pieces(&self, body: &[u8]) -> Result<Vec<u8>, Unreachable<Consensus>> {
        let transfer = self.transfers.fetch_add(1, Ordering::Relaxed);
        let mut answer = Vec::new();
        let mut left = pieces(transfer, body).peekable();
        while let Some(piece) = left.next() {
            let limit = if left.peek().is_some() { PIECE_LIMIT } else { WHOLE_LIMIT };
            let body = Message::encode(self.to, Call::Piece(piece)).map_err(unreachable)?;
            answer = self.send(body, limit).await?;
        }
        Ok(answer)
    }

    async fn send(
        &self,
        body: Vec<u8>,
        limit: Duration,
    ) -> Result<Vec<u8>, Unreachable<Consensus>> {
        let answer = tokio::time::timeout(limit, self.peers.call(self.to, body, limit)).await;
        answer.map_err(unreachable)?.map_err(unreachable)
    }
}

fn unreachable(error: impl std::fmt::Display) -> Unreachable<Consensus> {
    Unreachable::from_string(error)
}

impl<P: Peers> RaftNetworkV2<Consensus> for Link<P> {
    type SnapshotData = SnapshotData;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Consensus>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<Consensus>, RPCError<Consensus>> {
        // A slow disk is not made faster by sending the same again: only what carries nothing is
        // given up within the library's time, which is that between two heartbeats.
        let limit = if request.entries.is_empty() { option.soft_ttl() } else { WRITE_LIMIT };
        Ok(self.call(Call::Append(request), limit).await?)
    }

    async fn vote(
        &mut self,
        request: VoteRequest<Consensus>,
        option: RPCOption,
    ) -> Result<VoteResponse<Consensus>, RPCError<Consensus>> {
        Ok(self.call(Call::Vote(request), option.soft_ttl()).await?)
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<Consensus>,
        option: RPCOption,
    ) -> Result<VoteResponse<Consensus>, RPCError<Consensus>> {
        Ok(self.call(Call::PreVote(request), option.soft_ttl()).await?)
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<Consensus>, StreamingError<Consensus>> {
        let call = Call::Snapshot { vote, meta: snapshot.meta, data: snapshot.snapshot };
        tokio::select! {
            // Its own time: the library's is one for all, however large the snapshot is.
            sent = self.call(call, WHOLE_LIMIT) => Ok(sent?),
            closed = cancel => Err(StreamingError::Closed(closed)),
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<Consensus>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Consensus>, RPCError<Consensus>> {
        Ok(self.call(Call::Transfer(request), option.soft_ttl()).await?)
    }
}
