//! Errors that a user sees.

use serde::{Deserialize, Serialize};

/// What kind of error a user sees; the API maps it to an HTTP status in one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FaultKind {
    /// The request is wrong: 400.
    Invalid,
    /// Who asks has not given what proves that he may: 401.
    Unauthorized,
    /// The user may not do this: 403.
    Forbidden,
    /// There is no such thing: 404.
    NotFound,
    /// A name, port, subnet or version is taken: 409.
    Conflict,
    /// The cluster cannot do this now, e.g. the node is no manager or there is no leader: 503.
    Unavailable,
    /// Skep does not have this feature (yet): 501.
    NotImplemented,
    /// The release at the other end and this one do not understand each other; trying again is of
    /// no use before one of them is updated: 501.
    Incompatible,
    /// Something broke on our side: 500.
    Internal,
}

/// An error for a user: a kind and a message that says what to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Fault {
    pub kind: FaultKind,
    pub message: String,
}

/// What a manager says that was asked for what only the one that leads does: nothing was done, another
/// one may be asked at once. Managers of neighbouring releases know it by this sentence: it stays as it is.
const NOT_LEADING: &str = "this manager does not lead the cluster";

impl Fault {
    /// Nothing was done, as this manager does not lead.
    pub fn not_leading() -> Self {
        Self::unavailable(NOT_LEADING)
    }

    /// Says whether nothing was done, as the manager that was asked does not lead.
    pub fn is_not_leading(&self) -> bool {
        self.message == NOT_LEADING
    }

    pub fn new(kind: FaultKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(FaultKind::Invalid, message)
    }

    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(FaultKind::Forbidden, message)
    }

    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(FaultKind::NotFound, message)
    }

    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(FaultKind::Conflict, message)
    }

    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(FaultKind::Unavailable, message)
    }

    pub fn not_implemented(feature: &str) -> Self {
        Self::new(FaultKind::NotImplemented, format!("not supported by skep yet: {feature}"))
    }

    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(FaultKind::Internal, message)
    }
}

/// What a loop makes of an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// The same call may succeed later.
    Transient,
    /// The same call will fail again.
    Permanent,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn managers_of_other_releases_know_by_the_sentence_that_nothing_was_done() {
        let said = Fault::unavailable("this manager does not lead the cluster");
        assert!(said.is_not_leading());
        assert_eq!(Fault::not_leading(), said);
    }
}
