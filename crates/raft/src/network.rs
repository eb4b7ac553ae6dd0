//! How managers' logs reach each other: the place for it. There is one manager, so nobody is
//! reachable.

use crate::consensus::{Consensus, Member, Snapshot, SnapshotData, Vote};
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::RPCOption;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
};
use openraft::{OptionalSend, RaftNetworkFactory, RaftNetworkV2};

pub(crate) struct Alone;

fn unreachable() -> Unreachable<Consensus> {
    Unreachable::from_string("this version runs one manager")
}

impl RaftNetworkFactory<Consensus> for Alone {
    type Network = Self;

    async fn new_client(&mut self, _target: u64, _member: &Member) -> Self {
        Self
    }
}

impl RaftNetworkV2<Consensus> for Alone {
    type SnapshotData = SnapshotData;

    async fn append_entries(
        &mut self,
        _request: AppendEntriesRequest<Consensus>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<Consensus>, RPCError<Consensus>> {
        Err(RPCError::Unreachable(unreachable()))
    }

    async fn vote(
        &mut self,
        _request: VoteRequest<Consensus>,
        _option: RPCOption,
    ) -> Result<VoteResponse<Consensus>, RPCError<Consensus>> {
        Err(RPCError::Unreachable(unreachable()))
    }

    async fn full_snapshot(
        &mut self,
        _vote: Vote,
        _snapshot: Snapshot,
        _cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<Consensus>, StreamingError<Consensus>> {
        Err(StreamingError::Unreachable(unreachable()))
    }
}
