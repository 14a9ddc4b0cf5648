//! Authorization: checks the policy of the RPC against the caller's access token or, for RPCs between services, the caller's
//! name. This layer is around every handler, so that a handler never checks it.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::future::Either;
use http::{Request, Response};
use tonic::body::Body;
use tower::{Layer, Service};

use crate::rpc::caller::Identity;
use crate::rpc::error::Error;
use crate::rpc::policy::{Access, Policies};
use crate::rpc::token::Verifier;

/// The name of a calling service. Roles listen on loopback only (`config::parse_loopback`), and the edge removes the header from
/// clients' requests.
pub const SERVICE_HEADER: &str = "x-souk-service";

#[derive(Clone)]
pub(crate) struct Admit {
    pub(crate) policies: Policies,
    pub(crate) verifier: Arc<Verifier>,
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

impl<S> Service<Request<Body>> for AdmitService<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Either<S::Future, Ready<Result<Response<Body>, Infallible>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let path = request.uri().path();
        // Health and reflection have no policy; they are public.
        if path.starts_with("/grpc.") {
            return Either::Left(self.inner.call(request));
        }
        let Some(policy) = self.admit.policies.get(path) else {
            return Either::Right(ready(Ok(Error::MethodNotFound.into_status("souk").into_http())));
        };
        let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok());
        let identify = || -> Result<Identity, Error> {
            let token = header("authorization").and_then(bearer_token);
            self.admit.verifier.verify(token.ok_or(Error::TokenRequired)?)
        };
        let identity = match policy.access {
            Access::Public => Ok(Identity::Anonymous),
            Access::Customer => identify(),
            Access::Operator => match identify() {
                Ok(Identity::Operator { user_id, session_id }) => Ok(Identity::Operator { user_id, session_id }),
                Ok(_) => Err(Error::PermissionDenied),
                Err(error) => Err(error),
            },
            Access::Service => match header(SERVICE_HEADER) {
                Some(name) if policy.callers.iter().any(|caller| caller == name) => {
                    Ok(Identity::Service { name: name.to_owned() })
                }
                _ => Err(Error::PermissionDenied),
            },
        };
        match identity {
            Ok(identity) => {
                request.extensions_mut().insert(identity);
                Either::Left(self.inner.call(request))
            }
            Err(error) => Either::Right(ready(Ok(error.into_status(&policy.domain).into_http()))),
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
