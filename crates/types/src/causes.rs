//! Errors with what caused them.

use std::error::Error;
use std::iter::successors;

/// An error, what caused it, what caused that, and so on.
pub fn causes<'a>(
    error: &'a (dyn Error + 'static),
) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    successors(Some(error), |error| (*error).source())
}

/// An error with all its causes, in one line.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    causes(error).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Failure {
        text: &'static str,
        source: Option<Box<Failure>>,
    }

    fn failure(text: &'static str, source: Option<Failure>) -> Failure {
        Failure { text, source: source.map(Box::new) }
    }

    #[test]
    fn every_cause_is_told_once() {
        let bottom = failure("no space", None);
        let error = failure("cannot start", Some(failure("cannot write", Some(bottom))));
        assert_eq!(chain(&error), "cannot start: cannot write: no space");
        assert_eq!(causes(&error).last().unwrap().to_string(), "no space");
        assert_eq!(chain(&failure("alone", None)), "alone");
    }
}
