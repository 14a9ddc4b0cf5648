//! Bounds the open streams of one role, of each user and of all together, and measures them. A stream is open until its last
//! message is sent or its caller leaves.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard};

use http::{Extensions, HeaderMap, Response};
use http_body_util::BodyExt;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use tonic::Code;
use tonic::body::Body;
use uuid::Uuid;

use crate::boot::metrics::{self, ByRpc};
use crate::rpc::caller::Identity;
use crate::rpc::error::Error;
use crate::rpc::observe::{CODES, Outcome, code_in};
use crate::rpc::policy::Policies;

/// Open streams of one role. The edge allows twice as many to each role.
const MAX_STREAMS: usize = 2_000;
/// Open streams of one user, at one role.
const MAX_STREAMS_PER_USER: usize = 50;

static OPEN: LazyLock<Family<ByRpc, Gauge>> =
    LazyLock::new(|| metrics::register("rpc_streams", "Open streams, by RPC", Family::default()));
static ENDED: LazyLock<Family<Outcome, Counter>> = LazyLock::new(|| {
    let help = "Streams that ended, by RPC and code; CANCELLED if the caller left";
    metrics::register("rpc_streams_ended", help, Family::default())
});

#[derive(Debug, Clone, Default)]
pub(crate) struct StreamLimit(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    policies: Option<Policies>,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    count: usize,
    by_user: HashMap<Uuid, usize>,
}

impl StreamLimit {
    pub(crate) fn new(policies: &Policies) -> Self {
        Self(Arc::new(Shared { policies: Some(policies.clone()), open: Mutex::default() }))
    }

    /// A place for the stream that this RPC responds with; none if it responds with one message.
    pub(crate) fn admit(&self, rpc: &str, request: &Extensions) -> Result<Option<Place>, Error> {
        let policy = self.0.policies.as_ref().and_then(|policies| policies.get(rpc));
        if !policy.is_some_and(|policy| policy.is_stream) {
            return Ok(None);
        }
        let user_id = match request.get::<Identity>() {
            Some(Identity::Customer { user_id, .. } | Identity::Operator { user_id, .. }) => Some(*user_id),
            _ => None,
        };
        let mut open = self.0.lock();
        if open.count >= MAX_STREAMS {
            return Err(Error::StreamsExhausted { scope: "the replica", limit: MAX_STREAMS });
        }
        if let Some(user_id) = user_id {
            let of_user = open.by_user.entry(user_id).or_default();
            if *of_user >= MAX_STREAMS_PER_USER {
                return Err(Error::StreamsExhausted { scope: "the user", limit: MAX_STREAMS_PER_USER });
            }
            *of_user += 1;
        }
        open.count += 1;
        drop(open);
        let rpc = rpc.trim_start_matches('/');
        let gauge = OPEN.get_or_create_owned(&ByRpc::new(rpc));
        gauge.inc();
        Ok(Some(Place { limit: self.clone(), user_id, rpc: rpc.to_owned(), gauge }))
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().expect("nothing panics while it holds this lock")
    }
}

/// What one open stream takes of the limits.
#[derive(Debug)]
pub(crate) struct Place {
    limit: StreamLimit,
    user_id: Option<Uuid>,
    rpc: String,
    gauge: Gauge,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.gauge.dec();
        let mut open = self.limit.0.lock();
        open.count -= 1;
        let Some(user_id) = self.user_id else { return };
        if let Some(of_user) = open.by_user.get_mut(&user_id) {
            *of_user -= 1;
            if *of_user == 0 {
                open.by_user.remove(&user_id);
            }
        }
    }
}

impl Place {
    /// Keeps the place until the response has ended. An error has no stream.
    pub(crate) fn follow(self, response: Response<Body>) -> Response<Body> {
        if code_in(response.headers()).is_some() {
            return response;
        }
        let mut stream = Followed { place: self, code: Code::Cancelled as usize };
        let body = |body: Body| {
            body.map_frame(move |frame| {
                stream.note(frame.trailers_ref());
                frame
            })
        };
        response.map(|it| Body::new(body(it)))
    }
}

/// A stream that has begun.
struct Followed {
    place: Place,
    /// Of the trailers, once they are sent.
    code: usize,
}

impl Followed {
    fn note(&mut self, trailers: Option<&HeaderMap>) {
        if let Some(code) = trailers.and_then(code_in) {
            self.code = code;
        }
    }
}

impl Drop for Followed {
    fn drop(&mut self) {
        ENDED.get_or_create(&Outcome { rpc: self.place.rpc.clone(), code: CODES[self.code] }).inc();
    }
}

#[cfg(test)]
mod tests {
    use std::future::ready;

    use bytes::Bytes;
    use http::HeaderValue;
    use http_body_util::Full;
    use tonic::Status;

    use super::*;
    use crate::rpc::policy::{Access, Policy, RateClass};

    const WATCH: &str = "/souk.test.v1.TestService/Watch";

    fn limit() -> StreamLimit {
        let policy = Policy {
            access: Access::Customer,
            callers: vec![],
            rate_class: RateClass::Read,
            is_stream: true,
            domain: "souk.test".to_owned(),
        };
        StreamLimit::new(&Policies::read(&[]).expect("no contracts").with(&[(WATCH, policy)]))
    }

    fn caller(user: u128) -> Extensions {
        let mut extensions = Extensions::new();
        let (user_id, session_id) = (Uuid::from_u128(user), Uuid::from_u128(1));
        extensions.insert(Identity::Customer { user_id, session_id });
        extensions
    }

    fn refused(outcome: Result<Option<Place>, Error>) -> &'static str {
        match outcome {
            Err(Error::StreamsExhausted { scope, .. }) => scope,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_user_and_a_replica_have_so_many_streams() {
        let limit = limit();
        assert!(limit.admit("/souk.test.v1.TestService/Get", &caller(1)).expect("admitted").is_none(), "no stream");
        let open = |user| limit.admit(WATCH, &caller(user)).map(|it| it.expect("a stream"));
        let mut places: Vec<_> = (0..MAX_STREAMS_PER_USER).map(|_| open(1).expect("admitted")).collect();
        assert_eq!(refused(limit.admit(WATCH, &caller(1))), "the user");
        places.pop();
        places.push(open(1).expect("one has ended"));
        for at in MAX_STREAMS_PER_USER..MAX_STREAMS {
            places.push(open(1_000 + at as u128).expect("admitted"));
        }
        assert_eq!(refused(limit.admit(WATCH, &caller(2))), "the replica");
        drop(places);
        let open = limit.0.lock();
        assert_eq!((open.count, open.by_user.len()), (0, 0));
    }

    #[tokio::test]
    async fn a_place_is_free_when_the_stream_has_ended_or_its_caller_has_left() {
        let limit = limit();
        let count = || limit.0.lock().count;
        let begin = |code: &'static str| {
            let trailers = HeaderMap::from_iter([(Status::GRPC_STATUS, HeaderValue::from_static(code))]);
            let body = Full::new(Bytes::from_static(b"one")).with_trailers(ready(Some(Ok(trailers))));
            let place = limit.admit(WATCH, &caller(1)).expect("admitted").expect("a stream");
            place.follow(Response::new(Body::new(body)))
        };
        let ended = |code| ENDED.get_or_create(&Outcome { rpc: WATCH[1..].to_owned(), code }).get();
        let body = begin("0").into_body();
        assert_eq!((count(), ended("OK")), (1, 0));
        body.collect().await.expect("all of it");
        assert_eq!((count(), ended("OK"), ended("CANCELLED")), (0, 1, 0));
        begin("14").into_body().collect().await.expect("all of it");
        assert_eq!((count(), ended("UNAVAILABLE")), (0, 1));
        drop(begin("0"));
        assert_eq!((count(), ended("CANCELLED")), (0, 1), "its caller left");
        let place = limit.admit(WATCH, &caller(1)).expect("admitted").expect("a stream");
        let refused = place.follow(Status::not_found("none").into_http());
        assert_eq!((count(), ended("NOT_FOUND")), (0, 0), "an error is no stream");
        drop(refused);
    }
}
