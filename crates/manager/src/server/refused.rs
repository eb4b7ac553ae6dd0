//! Calls that are refused are counted, whoever refuses them and why.

use ca::{Connection, Refusals};
use http::{Request, Response};
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::server::NamedService;
use tonic::{Code, Status};

/// Bytes of a call's name that are told: strangers may call it what they like.
const PATH_MAX: usize = 128;

/// A service whose refusals are counted.
#[derive(Clone, Debug)]
pub(crate) struct Counted<S> {
    pub(crate) service: S,
    pub(crate) refusals: Refusals,
}

impl<S: NamedService> NamedService for Counted<S> {
    const NAME: &'static str = S::NAME;
}

impl<S, B> Service<Request<Body>> for Counted<S>
where
    S: Service<Request<Body>, Response = Response<B>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<B>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<B>, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.service.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let refusals = self.refusals.clone();
        let connection = request.extensions().get::<Connection>().cloned();
        let path = request.uri().path();
        let path = path[..path.floor_char_boundary(PATH_MAX)].to_owned();
        let answer = self.service.call(request);
        Box::pin(async move {
            let answer = answer.await?;
            if let Some(connection) = connection
                && let Some(why) = refusal(&answer)
            {
                refusals.call(&connection, &path, &why);
            }
            Ok(answer)
        })
    }
}

/// Why the caller may not do what it asked for; `None`: it may.
fn refusal<B>(answer: &Response<B>) -> Option<String> {
    let status = Status::from_header_map(answer.headers())?;
    let is_refused = matches!(
        status.code(),
        // A node that is not found is one that was removed; the rest is no message of ours.
        Code::PermissionDenied
            | Code::Unauthenticated
            | Code::NotFound
            | Code::InvalidArgument
            | Code::OutOfRange
            | Code::Internal
    );
    is_refused.then(|| status.message().to_owned())
}
