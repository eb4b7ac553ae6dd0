//! What can go wrong between us, containerd and a registry.

use std::io;
use std::path::PathBuf;
use std::time::Duration;
use types::{Fault, FaultKind, Retry, causes, chain};

/// Why something that needs containerd failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot {call}: {}", message(status))]
    Call { call: &'static str, status: Box<tonic::Status> },
    #[error("cannot {call}: containerd did not answer within {} s", limit.as_secs())]
    TimedOut { call: &'static str, limit: Duration },
    #[error("cannot {call}: containerd left the answer out")]
    NoAnswer { call: &'static str },
    #[error("cannot {action} {}", path.display())]
    File {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot start containerd: {reason}")]
    Start { reason: String },
    #[error("cannot stop containerd: it does not end")]
    Stop,
    #[error("{name:?} cannot be the name of a containerd namespace")]
    Namespace { name: String },
    #[error("containerd has neither the overlayfs nor the native snapshotter")]
    NoSnapshotter,
    #[error("{what} is not valid JSON")]
    Json {
        what: String,
        #[source]
        source: serde_json::Error,
    },
    #[error("invalid image archive: {0}")]
    Archive(String),
    #[error(
        "there is too little {what} left at {}: remove images that are not used, or make room",
        path.display()
    )]
    Full { what: &'static str, path: PathBuf },
    #[error("content of {expected} is damaged: {reason}")]
    Digest { expected: String, reason: String },
    #[error("No such image: {0}")]
    NoImage(String),
    #[error("No such container: {0}")]
    NoContainer(String),
    #[error("containerd cannot tell how container {0} is")]
    Unknown(String),
    #[error("{0}")]
    User(String),
    /// A refusal in the words Docker uses, often a registry's.
    #[error(transparent)]
    Refused(#[from] Fault),
    #[error("{message}")]
    Registry { message: String, retry: Retry },
}

/// The part of a status that a person can use, with what is at the bottom of it.
fn message(status: &tonic::Status) -> String {
    let message = match status.message() {
        "" => status.code().description(),
        message => message,
    };
    match causes(status).skip(1).last().map(ToString::to_string) {
        Some(cause) if !message.contains(&cause) => format!("{message}: {cause}"),
        _ => message.to_owned(),
    }
}

/// Says whether a call ended without an answer to what was asked: whoever takes that for one
/// concludes that what runs is not there.
fn is_unanswered(status: &tonic::Status) -> bool {
    use std::error::Error as _;
    let code = status.code();
    // What has a cause of its own comes from the connection, not from containerd.
    let is_broken = code != tonic::Code::NotFound && status.source().is_some();
    is_broken
        || matches!(
            code,
            tonic::Code::Unavailable
                | tonic::Code::Aborted
                | tonic::Code::DeadlineExceeded
                | tonic::Code::Cancelled
        )
}

impl Error {
    /// Says whether the same call may succeed later.
    pub fn retry(&self) -> Retry {
        let transient = match self {
            Error::Call { status, .. } => {
                is_unanswered(status) || status.code() == tonic::Code::ResourceExhausted
            }
            Error::TimedOut { .. }
            | Error::NoAnswer { .. }
            | Error::Start { .. }
            | Error::Stop
            | Error::Unknown(_) => true,
            Error::File { source, .. } => {
                matches!(source.kind(), io::ErrorKind::Interrupted | io::ErrorKind::ResourceBusy)
            }
            Error::Registry { retry, .. } => return *retry,
            Error::Namespace { .. }
            | Error::NoSnapshotter
            | Error::Json { .. }
            | Error::Archive(_)
            | Error::Full { .. }
            | Error::Digest { .. }
            | Error::NoImage(_)
            | Error::NoContainer(_)
            | Error::User(_)
            | Error::Refused(_) => false,
        };
        if transient { Retry::Transient } else { Retry::Permanent }
    }

    pub(crate) fn file(action: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        Error::File { action, path: path.into(), source }
    }

    pub(crate) fn json(what: impl Into<String>, source: serde_json::Error) -> Self {
        Error::Json { what: what.into(), source }
    }

    pub(crate) fn code(&self) -> Option<tonic::Code> {
        match self {
            Error::Call { status, .. } => Some(status.code()),
            _ => None,
        }
    }

    pub(crate) fn is_not_found(&self) -> bool {
        self.code() == Some(tonic::Code::NotFound)
    }

    pub(crate) fn is_taken(&self) -> bool {
        self.code() == Some(tonic::Code::AlreadyExists)
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        let message = chain(&error);
        let kind = match &error {
            Error::Call { status, .. } => match status.code() {
                tonic::Code::NotFound => FaultKind::NotFound,
                tonic::Code::AlreadyExists | tonic::Code::FailedPrecondition => FaultKind::Conflict,
                tonic::Code::InvalidArgument => FaultKind::Invalid,
                _ if is_unanswered(status) => FaultKind::Unavailable,
                _ => FaultKind::Internal,
            },
            Error::TimedOut { .. }
            | Error::NoAnswer { .. }
            | Error::Start { .. }
            | Error::Stop
            | Error::NoSnapshotter
            | Error::Unknown(_) => FaultKind::Unavailable,
            Error::File { .. }
            | Error::Full { .. }
            | Error::Digest { .. }
            | Error::Registry { .. } => FaultKind::Internal,
            Error::Namespace { .. } | Error::Json { .. } | Error::Archive(_) | Error::User(_) => {
                FaultKind::Invalid
            }
            Error::NoImage(_) | Error::NoContainer(_) => FaultKind::NotFound,
            Error::Refused(fault) => fault.kind,
        };
        Fault::new(kind, message)
    }
}

/// Takes "it is not there" for success, as whoever removes something wants.
pub(crate) trait Gone {
    fn or_gone(self) -> Result<(), Error>;
}

impl<T> Gone for Result<T, Error> {
    fn or_gone(self) -> Result<(), Error> {
        match self {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic::{Code, Status};

    fn kind(status: Status) -> FaultKind {
        Fault::from(Error::Call { call: "look", status: Box::new(status) }).kind
    }

    #[test]
    fn a_call_without_an_answer_is_no_answer() {
        for code in [Code::Unavailable, Code::DeadlineExceeded, Code::Cancelled, Code::Aborted] {
            assert_eq!(kind(Status::new(code, "late")), FaultKind::Unavailable, "{code:?}");
        }
        let broken = Status::from_error(Box::new(io::Error::other("the connection broke")));
        assert_eq!((broken.code(), kind(broken)), (Code::Unknown, FaultKind::Unavailable));
        // So containerd passes on what runc says.
        assert_eq!(kind(Status::unknown("cannot mount /x")), FaultKind::Internal);
        assert_eq!(kind(Status::not_found("no such task")), FaultKind::NotFound);
    }

    /// What users read of an error, by way of the API and of the command line.
    fn check(make: impl Fn() -> Error, text: &str) {
        assert_eq!(Fault::from(make()).message, text);
        assert_eq!(chain(&make()), text);
    }

    #[test]
    fn a_cause_is_told_once() {
        let missing = || io::Error::other("it is missing");
        check(|| Error::file("read", "/x", missing()), "cannot read /x: it is missing");
        let json = || serde_json::from_str::<bool>("1 ").unwrap_err();
        let text = format!("the manifest is not valid JSON: {}", json());
        check(|| Error::json("the manifest", json()), &text);
        let call = |status: Status| Error::Call { call: "list tasks", status: status.into() };
        check(|| call(Status::unavailable("gone")), "cannot list tasks: gone");
        let broken = || Status::from_error(Box::new(missing()));
        let text = chain(&call(broken()));
        assert_eq!(text.matches("it is missing").count(), 1, "{text}");
    }

    #[test]
    fn what_cannot_be_stopped_is_not_said_to_be_started() {
        check(|| Error::Stop, "cannot stop containerd: it does not end");
        let text = "\"a b\" cannot be the name of a containerd namespace";
        check(|| Error::Namespace { name: "a b".to_owned() }, text);
    }
}
