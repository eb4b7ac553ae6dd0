//! How a [`Fault`] crosses from node to node: as a gRPC status.

use tonic::{Code, Status};
use types::{Fault, FaultKind};

/// A status travels in a header, whose size peers limit: a longer message is cut.
const MESSAGE_LIMIT: usize = 4096;

/// The status that carries a fault.
pub fn status_of(fault: Fault) -> Status {
    let code = match fault.kind {
        FaultKind::Invalid => Code::InvalidArgument,
        FaultKind::Unauthorized => Code::Unauthenticated,
        FaultKind::Forbidden => Code::PermissionDenied,
        FaultKind::NotFound => Code::NotFound,
        FaultKind::Conflict => Code::AlreadyExists,
        FaultKind::Unavailable => Code::Unavailable,
        FaultKind::NotImplemented => Code::Unimplemented,
        FaultKind::Incompatible => Code::FailedPrecondition,
        FaultKind::Internal => Code::Internal,
    };
    let mut message = fault.message;
    message.truncate(message.floor_char_boundary(MESSAGE_LIMIT));
    Status::new(code, message)
}

/// A fault of a manager that does not lead, with where all managers are, `host:port`. The one that leads,
/// if it is known, is said first, and once more in its place: former releases take it for one of them.
pub fn elsewhere(leader: Option<&String>, managers: &[String]) -> Status {
    let status = status_of(Fault::not_leading());
    let told: Vec<&String> = leader.into_iter().chain(managers).collect();
    let details = crate::encode(&told).unwrap_or_default();
    Status::with_details(status.code(), status.message(), details.into())
}

/// Where managers are, if the one that refused has said so.
pub fn managers_of(status: &Status) -> Vec<String> {
    crate::decode(status.details()).unwrap_or_default()
}

/// Where the manager is that leads, if the one that refused has said so.
pub fn leader_of(told: &[String]) -> Option<&String> {
    let (first, managers) = told.split_first()?;
    managers.contains(first).then_some(first)
}

/// The fault that a status carries. What the transport itself reports (a peer that is away, a call
/// that took too long) is `Unavailable`: the same call may succeed later.
#[expect(clippy::needless_pass_by_value, reason = "reads as `map_err(wire::fault_of)`")]
pub fn fault_of(status: Status) -> Fault {
    let kind = match status.code() {
        Code::InvalidArgument | Code::OutOfRange => FaultKind::Invalid,
        Code::Unauthenticated => FaultKind::Unauthorized,
        Code::PermissionDenied => FaultKind::Forbidden,
        Code::NotFound => FaultKind::NotFound,
        Code::AlreadyExists | Code::Aborted => FaultKind::Conflict,
        Code::FailedPrecondition => FaultKind::Incompatible,
        Code::Unimplemented => FaultKind::NotImplemented,
        Code::Internal | Code::DataLoss => FaultKind::Internal,
        Code::Ok
        | Code::Unavailable
        | Code::Cancelled
        | Code::DeadlineExceeded
        | Code::ResourceExhausted
        | Code::Unknown => FaultKind::Unavailable,
    };
    let message = match status.message() {
        "" => status.code().description(),
        message => message,
    };
    Fault::new(kind, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_crosses_whole() {
        for kind in [
            FaultKind::Invalid,
            FaultKind::Unauthorized,
            FaultKind::Forbidden,
            FaultKind::NotFound,
            FaultKind::Conflict,
            FaultKind::Unavailable,
            FaultKind::NotImplemented,
            FaultKind::Incompatible,
            FaultKind::Internal,
        ] {
            let fault = Fault::new(kind, "port '80' is taken");
            assert_eq!(fault_of(status_of(fault.clone())), fault);
        }
    }

    #[test]
    fn where_managers_are_crosses_with_who_leads() {
        let managers = ["a:1", "b:1", "c:1"].map(str::to_owned);
        let told = managers_of(&elsewhere(managers.get(1), &managers));
        assert_eq!(leader_of(&told), Some(&managers[1]));
        assert!(managers.iter().all(|manager| told.contains(manager)));
        let told = managers_of(&elsewhere(None, &managers));
        assert_eq!((leader_of(&told), told.as_slice()), (None, managers.as_slice()));
    }

    #[test]
    fn a_long_message_is_cut_between_characters() {
        let status = status_of(Fault::invalid("…".repeat(5000)));
        assert!(status.message().len() <= MESSAGE_LIMIT);
        assert!(status.message().ends_with('…'));
    }
}
