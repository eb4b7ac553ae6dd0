//! What nodes say to each other, and the one codec they say it in.
//!
//! Start with [`Dispatcher`] and [`SessionMessage`]: they carry a cluster's life; [`Membership`] is
//! how a machine gets in, [`Managers`] what managers tell each other. It knows nothing of who calls whom, of TLS or of addresses.
//!
//! Invariants: messages are MessagePack with field names, so a reader of a neighbouring version
//! skips what it does not know; an error crosses as a status and comes out as the same
//! [`types::Fault`] ([`status_of`], [`fault_of`]); no side takes a message over its limit, nor one that
//! takes many times its bytes in memory.

mod codec;
mod managers;
mod materials;
mod messages;
mod parts;
mod release;
mod service;
mod status;

pub use codec::MessagePack;
pub use managers::{
    BarrierReply, BarrierRequest, LogItem, LogSelector, LogsRequest, Order, OrderReply,
    OrderRequest, RaftMessage, Rotate,
};
pub use materials::Materials;
pub use messages::{
    Acknowledge, Answer, Assignments, Difference, Done, EnrollReply, EnrollRequest, Heartbeat,
    HeartbeatReply, IssueReply, IssueRequest, LeaveRequest, LogChunk, LogLine, LogOptions,
    LogRequest, NumberRequest, Report, RootReply, RootRequest, SessionMessage, SessionRequest,
    Trust, Welcome,
};
pub use msgpack::{decode, decode_sent, encode};
pub use parts::Parts;
pub use release::Release;
pub use service::{
    Dispatcher, DispatcherClient, DispatcherServer, MANAGERS_LIMIT, MEMBERSHIP_LIMIT,
    MESSAGE_LIMIT, Managers, ManagersClient, ManagersServer, Membership, MembershipClient,
    MembershipServer, WHOLE_LIMIT, dispatcher_client, dispatcher_server, managers_client,
    managers_server, membership_client, membership_server,
};
pub use status::{elsewhere, fault_of, leader_of, managers_of, status_of};
