//! Authorization: checks the policy of the RPC against the caller's access token or, for RPCs between services, against the role
//! at the other end of the connection. This layer is around every handler, so that a handler never checks it.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::future::Either;
use http::{Request, Response};
use tonic::Status;
use tonic::body::Body;
use tower::{Layer, Service};

use crate::rpc::caller::Identity;
use crate::rpc::error::Error;
use crate::rpc::policy::{Access, Policies};
use crate::rpc::refused::{RefusalLog, RefusedCall};
use crate::rpc::token::Verifier;
use crate::tls::{Certificates, Origin};

#[derive(Clone)]
pub(crate) struct Admit {
    pub(crate) policies: Policies,
    /// The paths of documents beside the RPCs, which every party may read.
    pub(crate) pages: Arc<[&'static str]>,
    pub(crate) verifier: Arc<Verifier>,
    /// Says who may call.
    pub(crate) certificates: Arc<Certificates>,
    pub(crate) log: Arc<RefusalLog>,
}

impl<S> Layer<S> for Admit {
    type Service = AdmitService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        AdmitService { inner, admit: self.clone() }
    }
}

#[derive(Clone)]
pub(crate) struct AdmitService<S> {
    inner: S,
    admit: Admit,
}

type Refused = Ready<Result<Response<Body>, Infallible>>;
/// A call that waits until tokens can be verified.
type Waiting = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

impl<S> Service<Request<Body>> for AdmitService<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Either<S::Future, Either<Refused, Waiting>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let policy = self.admit.policies.get(request.uri().path());
        let needs_token = policy.is_some_and(|policy| matches!(policy.access, Access::Customer | Access::Operator));
        if !needs_token || self.admit.verifier.has_settled() {
            return match self.admit.admit(&mut request) {
                Ok(()) => Either::Left(self.inner.call(request)),
                Err(refusal) => Either::Right(Either::Left(ready(Ok(refusal.into_http())))),
            };
        }
        let (mut inner, admit) = (self.inner.clone(), self.admit.clone());
        Either::Right(Either::Right(Box::pin(async move {
            // The handlers are always ready; a clone of them, too.
            admit.verifier.ready_in_time().await;
            match admit.admit(&mut request) {
                Ok(()) => inner.call(request).await,
                Err(refusal) => Ok(refusal.into_http()),
            }
        })))
    }
}

impl Admit {
    /// Adds the caller's identity to the request, or refuses it.
    fn admit(&self, request: &mut Request<Body>) -> Result<(), Status> {
        let path = request.uri().path();
        // Health and reflection have no policy: every client that can connect may call them.
        if path.starts_with("/grpc.") {
            return Ok(());
        }
        let origin = request.extensions().get::<Origin>();
        let party = origin.and_then(|origin| origin.party(request.headers()));
        let admitted = party.as_ref().filter(|party| self.certificates.admits(party));
        if self.pages.contains(&path) && admitted.is_some() {
            return Ok(());
        }
        let Some(policy) = self.policies.get(path) else {
            return Err(Error::MethodNotFound.into_status("souk"));
        };
        let identify = || -> Result<Identity, Error> {
            let header = request.headers().get("authorization").and_then(|value| value.to_str().ok());
            let token = header.and_then(bearer_token);
            self.verifier.verify(token.ok_or(Error::TokenRequired)?)
        };
        let mut actor = None;
        let identity = match (policy.access, admitted) {
            (_, None) => Err(Error::PermissionDenied),
            (Access::Public, _) => Ok(Identity::Anonymous),
            (Access::Customer, _) => identify(),
            (Access::Operator, _) => match identify() {
                Ok(Identity::Operator { user_id, session_id }) => Ok(Identity::Operator { user_id, session_id }),
                Ok(other) => {
                    actor = Some(other.actor());
                    Err(Error::PermissionDenied)
                }
                Err(error) => Err(error),
            },
            (Access::Service, Some(party)) if policy.callers.iter().any(|caller| caller == party.name()) => {
                Ok(Identity::Service { name: party.name().to_owned() })
            }
            (Access::Service, Some(_)) => Err(Error::PermissionDenied),
        };
        match identity {
            Ok(identity) => {
                request.extensions_mut().insert(identity);
                Ok(())
            }
            Err(error) => {
                let call = RefusedCall { rpc: path, party: party.as_ref(), actor };
                Err(self.log.refuse(call, error, &policy.domain))
            }
        }
    }
}

/// The scheme in any case, one or more spaces, and the token (RFC 9110, 11.4).
fn bearer_token(credentials: &str) -> Option<&str> {
    let (scheme, token) = credentials.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim_start_matches(' '))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_case_of_the_scheme_and_the_number_of_spaces_do_not_matter() {
        for good in ["Bearer a.b.c", "bearer a.b.c", "BEARER a.b.c", "bEaReR    a.b.c"] {
            assert_eq!(bearer_token(good), Some("a.b.c"), "{good}");
        }
        for odd in ["", "Bearer", "Bearera.b.c", "a.b.c", "Basic a.b.c", " Bearer a.b.c", "Bearer\ta.b.c"] {
            assert_eq!(bearer_token(odd), None, "{odd}");
        }
    }
}
