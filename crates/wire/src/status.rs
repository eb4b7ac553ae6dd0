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

/// A fault of a manager that does not lead, with where all managers are, `host:port`.
pub fn elsewhere(managers: &[String]) -> Status {
    let status = status_of(Fault::not_leading());
    let details = crate::encode(&managers).unwrap_or_default();
    Status::with_details(status.code(), status.message(), details.into())
}

/// Where managers are, if the one that refused has said so.
pub fn managers_of(status: &Status) -> Vec<String> {
    crate::decode(status.details()).unwrap_or_default()
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
    fn a_long_message_is_cut_between_characters() {
        let status = status_of(Fault::invalid("…".repeat(5000)));
        assert!(status.message().len() <= MESSAGE_LIMIT);
        assert!(status.message().ends_with('…'));
    }
}
