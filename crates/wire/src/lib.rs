//! What nodes say to each other, and the one codec they say it in.
//!
//! Start with [`SessionMessage`]. It knows nothing of who calls whom.

mod messages;

pub use messages::{
    Acknowledge, Answer, Assignments, Difference, Done, Heartbeat, HeartbeatReply, IssueReply,
    IssueRequest, LeaveRequest, LogChunk, LogLine, LogOptions, LogRequest, Report, RootReply,
    RootRequest, SessionMessage, SessionRequest, Welcome,
};
