//! Clients and servers of our services, with the limits that both sides keep.

#[allow(
    warnings,
    clippy::all,
    clippy::pedantic,
    clippy::allow_attributes_without_reason,
    reason = "generated"
)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/skep.Membership.rs"));
    include!(concat!(env!("OUT_DIR"), "/skep.Dispatcher.rs"));
    include!(concat!(env!("OUT_DIR"), "/skep.Managers.rs"));
}

pub use generated::dispatcher_client::DispatcherClient;
pub use generated::dispatcher_server::{Dispatcher, DispatcherServer};
pub use generated::managers_client::ManagersClient;
pub use generated::managers_server::{Managers, ManagersServer};
pub use generated::membership_client::MembershipClient;
pub use generated::membership_server::{Membership, MembershipServer};

use tonic::transport::Channel;

/// The longest message that a manager takes from a node.
pub const MESSAGE_LIMIT: usize = 8 << 20;
/// The longest message of [`Membership`]: a certificate, or the wish for one. Strangers may send it.
pub const MEMBERSHIP_LIMIT: usize = 64 << 10;
/// The longest message between managers: a batch of the log's entries.
pub const MANAGERS_LIMIT: usize = 64 << 20;
/// The longest message that a node takes from a manager: all that it should have.
pub const WHOLE_LIMIT: usize = 64 << 20;

/// Calls [`Membership`] of a manager.
pub fn membership_client(channel: Channel) -> MembershipClient<Channel> {
    MembershipClient::new(channel).max_decoding_message_size(MEMBERSHIP_LIMIT)
}

/// Calls [`Dispatcher`] of a manager.
pub fn dispatcher_client(channel: Channel) -> DispatcherClient<Channel> {
    DispatcherClient::new(channel)
        .max_decoding_message_size(WHOLE_LIMIT)
        .max_encoding_message_size(MESSAGE_LIMIT)
}

/// Calls [`Managers`] of a manager.
pub fn managers_client(channel: Channel) -> ManagersClient<Channel> {
    ManagersClient::new(channel)
        .max_decoding_message_size(MANAGERS_LIMIT)
        .max_encoding_message_size(MANAGERS_LIMIT)
}

/// Offers `managers` to managers.
pub fn managers_server<T: Managers>(managers: T) -> ManagersServer<T> {
    ManagersServer::new(managers)
        .max_decoding_message_size(MANAGERS_LIMIT)
        .max_encoding_message_size(MANAGERS_LIMIT)
}

/// Offers `membership` to nodes and to machines that want to become one.
pub fn membership_server<T: Membership>(membership: T) -> MembershipServer<T> {
    MembershipServer::new(membership).max_decoding_message_size(MEMBERSHIP_LIMIT)
}

/// Offers `dispatcher` to nodes.
pub fn dispatcher_server<T: Dispatcher>(dispatcher: T) -> DispatcherServer<T> {
    DispatcherServer::new(dispatcher)
        .max_decoding_message_size(MESSAGE_LIMIT)
        .max_encoding_message_size(WHOLE_LIMIT)
}
