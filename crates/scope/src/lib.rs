//! Loops that live and die together.
//!
//! A [`Scope`] is the only place that spawns. Its loops have names; when one fails, panics or ends,
//! the others are cancelled too, and [`Scope::join`] tells the first failure.
//!
//! Invariant: a loop that ends before its token is cancelled has failed, whatever it returns.

use std::future::Future;
use std::pin::Pin;
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

/// Any error a loop may end with.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why a scope ended early.
#[derive(Debug, thiserror::Error)]
pub enum ScopeError {
    #[error("loop {name} failed")]
    Failed {
        name: &'static str,
        #[source]
        source: BoxError,
    },
    #[error("loop {name} ended early")]
    Ended { name: &'static str },
    #[error("a loop panicked")]
    Panicked(#[source] JoinError),
}

/// A group of named loops. When one fails, panics or ends, the others are cancelled.
///
/// [`Scope::join`] waits for the loops; dropping a scope aborts them where they stand.
#[derive(Debug)]
pub struct Scope {
    token: CancellationToken,
    loops: JoinSet<Result<(), ScopeError>>,
}

impl Default for Scope {
    fn default() -> Self {
        Self::new()
    }
}

impl Scope {
    /// Makes an empty scope of its own.
    pub fn new() -> Self {
        Self::with_token(CancellationToken::new())
    }

    /// Makes a scope that ends when `token` is cancelled.
    pub fn with_token(token: CancellationToken) -> Self {
        Self { token, loops: JoinSet::new() }
    }

    /// Makes a scope that ends with this one, but not the other way round.
    #[must_use]
    pub fn child(&self) -> Self {
        Self::with_token(self.token.child_token())
    }

    /// The token that every loop of this scope watches.
    pub fn token(&self) -> CancellationToken {
        self.token.clone()
    }

    /// Starts a loop.
    pub fn spawn<F, E>(&mut self, name: &'static str, run: F)
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<BoxError>,
    {
        self.start(name, Box::pin(async move { run.await.map_err(Into::into) }));
    }

    /// Behind a pointer: the runtime's code is made anew for each type of future that it runs.
    fn start(
        &mut self,
        name: &'static str,
        run: Pin<Box<dyn Future<Output = Result<(), BoxError>> + Send>>,
    ) {
        let token = self.token.clone();
        // Whoever is first to end takes the others along, also by a panic and while nobody joins.
        let last = self.token.clone().drop_guard();
        self.loops.spawn(async move {
            let _last = last;
            match run.await {
                Ok(()) if token.is_cancelled() => Ok(()),
                Ok(()) => {
                    tracing::error!(name, "loop ended early");
                    Err(ScopeError::Ended { name })
                }
                Err(source) => {
                    tracing::error!(name, error = source.as_ref(), "loop failed");
                    Err(ScopeError::Failed { name, source })
                }
            }
        });
    }

    /// Tells every loop to end.
    pub fn cancel(&self) {
        self.token.cancel();
    }

    /// Waits until every loop has ended and returns the first failure.
    pub async fn join(mut self) -> Result<(), ScopeError> {
        let mut first: Result<(), ScopeError> = Ok(());
        while let Some(ended) = self.loops.join_next().await {
            let outcome = ended.unwrap_or_else(|panic| Err(ScopeError::Panicked(panic)));
            first = first.and(outcome);
        }
        first
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_loop_that_fails_takes_the_others_along() {
        let mut scope = Scope::new();
        let token = scope.token();
        scope.spawn("waits", async move {
            token.cancelled().await;
            Ok::<(), BoxError>(())
        });
        scope.spawn("fails", async { Err::<(), BoxError>("broken".into()) });
        let error = scope.join().await.unwrap_err();
        assert!(matches!(error, ScopeError::Failed { name: "fails", .. }), "{error}");
    }

    #[tokio::test]
    async fn a_loop_that_ends_before_it_was_told_to_has_failed() {
        let mut scope = Scope::new();
        scope.spawn("ends", async { Ok::<(), BoxError>(()) });
        let error = scope.join().await.unwrap_err();
        assert_eq!(error.to_string(), "loop ends ended early");
    }

    #[tokio::test]
    async fn a_loop_that_panics_ends_its_scope_before_anybody_joins() {
        let mut scope = Scope::new();
        let token = scope.token();
        scope.spawn("panics", async { bug() });
        token.cancelled().await;
        let error = scope.join().await.unwrap_err();
        assert!(matches!(error, ScopeError::Panicked(_)), "{error}");
    }

    fn bug() -> Result<(), BoxError> {
        panic!("a bug");
    }

    #[tokio::test]
    async fn a_child_ends_with_its_parent_but_not_the_other_way_round() {
        let parent = Scope::new();
        let child = parent.child();
        child.cancel();
        assert!(!parent.token().is_cancelled());
        let second = parent.child();
        parent.cancel();
        assert!(second.token().is_cancelled());
        parent.join().await.unwrap();
    }
}
