//! A role: the routes, consumers, jobs and outbox of one service. Each service builds one; the binary selects which to run.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::routing::MethodRouter;
use http::{Request, Response};
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::service::{LayerExt, RoutesBuilder};
use tower::Service;

use crate::boot::clock::Clock;
use crate::boot::config::Common;
use crate::boot::db::Schema;
use crate::boot::job::{Job, Next};
use crate::boot::wake::Wake;
use crate::event::consumer::{Consumer, Handler};
use crate::event::outbox::{Changed, Outbox};
use crate::event::topic::TopicSlot;
use crate::rpc::idempotency;
use crate::rpc::policy::{Access, Policies, Policy, RateClass, Unreadable};
use crate::rpc::run_to_end::RunToEnd;
use crate::rpc::stream::Streams;
use crate::rpc::stream_limit::StreamLimit;
use crate::rpc::token::Verifier;
use crate::tls::Certificates;

/// Shared by all roles of a process.
#[derive(Clone)]
pub struct Context {
    pub clock: Clock,
    pub verifier: Arc<Verifier>,
    pub policies: Policies,
    pub certificates: Arc<Certificates>,
    pub descriptors: &'static [u8],
    /// Running handlers.
    pub tasks: TaskTracker,
    /// For handlers whose response is a stream.
    pub streams: Streams,
}

impl Context {
    pub fn new(config: &Common, descriptors: &'static [u8]) -> Result<Self, Unreadable> {
        let verifier = Arc::new(Verifier::new(&config.token.issuer, &config.token.audience));
        let tasks = TaskTracker::new();
        Ok(Self {
            clock: Clock::System,
            streams: Streams::new(&tasks, &verifier),
            verifier,
            policies: Policies::read(descriptors)?,
            certificates: Arc::new(Certificates::new(&config.tls)),
            descriptors,
            tasks,
        })
    }
}

const DELETE_EVERY: Duration = Duration::from_secs(60);

type Background = Box<dyn FnOnce(CancellationToken) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send>;

pub struct Role {
    /// Such as `order`.
    pub name: &'static str,
    /// The domain of its errors, such as `souk.order`.
    pub domain: &'static str,
    pub listen: SocketAddr,
    pub jobs: Vec<Job>,
    pub consumers: Vec<Consumer>,
    pub outbox: Option<Outbox>,
    /// Topics that it reads again from their beginning.
    pub topics: Vec<(&'static str, TopicSlot)>,
    pub(crate) database: Option<(&'static Schema, PgPool)>,
    pub(crate) clock: Clock,
    pub(crate) routes: RoutesBuilder,
    pub(crate) services: Vec<&'static str>,
    /// RPCs that are not in the contracts, by their paths.
    pub(crate) foreign: Vec<(&'static str, Policy)>,
    /// Documents beside the RPCs, and their paths.
    pub(crate) pages: (axum::Router, Vec<&'static str>),
    pub(crate) background: Vec<(&'static str, Background)>,
    tasks: TaskTracker,
    streams: StreamLimit,
}

impl Role {
    pub fn new(role: roster::Role, context: &Context) -> Self {
        Self {
            name: role.name,
            domain: role.domain,
            listen: SocketAddr::from(([127, 0, 0, 1], role.port())),
            jobs: vec![],
            consumers: vec![],
            outbox: None,
            topics: vec![],
            database: None,
            clock: Clock::System,
            routes: RoutesBuilder::default(),
            services: vec![],
            foreign: vec![],
            pages: Default::default(),
            background: vec![],
            tasks: context.tasks.clone(),
            streams: StreamLimit::new(&context.policies),
        }
    }

    /// Sets the address for gRPC, instead of the role's port in the roster.
    pub fn listen_on(self, listen: SocketAddr) -> Self {
        Self { listen, ..self }
    }

    /// Adds a gRPC service, whose handlers run to their end. Its RPCs take one message; a response may be a stream.
    pub fn serve<S>(mut self, service: S) -> Self
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>
            + NamedService
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send + 'static,
    {
        self.services.push(S::NAME);
        self.routes.add_service(self.run_to_end().named_layer(service));
        self
    }

    /// Adds a gRPC service that is not in our contracts, with one unary RPC, which only these callers may call.
    pub fn serve_foreign<S>(mut self, service: S, path: &'static str, callers: &[&str]) -> Self
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>
            + NamedService
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send + 'static,
    {
        let callers = callers.iter().map(|caller| (*caller).to_owned()).collect();
        let domain = self.domain.to_owned();
        let policy =
            Policy { access: Access::Service, callers, rate_class: RateClass::Internal, is_stream: false, domain };
        self.foreign.push((path, policy));
        self.routes.add_service(self.run_to_end().named_layer(service));
        self
    }

    fn run_to_end(&self) -> RunToEnd {
        RunToEnd::new(self.tasks.clone(), self.streams.clone(), self.domain)
    }

    /// Adds a gRPC service of RPCs that take a stream of messages. Its handlers are dropped when the caller leaves, so they must not use a database.
    pub fn serve_streaming<S>(mut self, service: S) -> Self
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>
            + NamedService
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send + 'static,
    {
        self.routes.add_service(service);
        self
    }

    /// Sets its database, without which it is NOT_SERVING, and which has to have this schema before it is ready, and its clock:
    /// jobs start when the database's time is known. Adds the job that deletes old responses.
    pub fn database(mut self, schema: &'static Schema, db: &PgPool, clock: &Clock) -> Self {
        self.database = Some((schema, db.clone()));
        self.clock = clock.clone();
        self.job(Job::new("delete_old_responses", DELETE_EVERY, db, |db| async move {
            Ok(Next::at_once_if(idempotency::delete_old(&db).await? > 0))
        }))
    }

    pub fn job(mut self, job: Job) -> Self {
        self.jobs.push(job);
        self
    }

    /// Consumes these topics under its own name. Its effects and its inbox are in this database.
    pub fn consume<H>(mut self, db: &PgPool, topics: &'static [&'static str], handler: &Arc<H>) -> Self
    where
        H: Handler + 'static,
    {
        self.consumers.push(Consumer { name: self.name, topics, db: db.clone(), handler: handler.clone() });
        self
    }

    /// Can read this topic again from its beginning; one that it consumes, so that it has the right to.
    pub fn read_again(mut self, topic: &'static str, slot: &TopicSlot) -> Self {
        self.topics.push((topic, slot.clone()));
        self
    }

    /// Publishes the events in the outbox of this database. `published` wakes its relay.
    pub fn publish(mut self, db: &PgPool, published: &Wake) -> Self {
        self.outbox = Some(Outbox { db: db.clone(), wake: published.clone(), changed: None });
        self
    }

    /// The relay of the outbox that it publishes adds the keys of the events that it reads to `changed`.
    pub fn report_changes_to(mut self, changed: &Changed) -> Self {
        if let Some(outbox) = &mut self.outbox {
            outbox.changed = Some(changed.clone());
        }
        self
    }

    /// Adds a document on the port of its RPCs. Like those, it is for callers with a certificate.
    pub fn page(mut self, path: &'static str, page: MethodRouter) -> Self {
        let (pages, paths) = &mut self.pages;
        *pages = std::mem::take(pages).route(path, page);
        paths.push(path);
        self
    }

    /// Adds a background task, which must run until its token is cancelled.
    pub fn background<F, U>(mut self, name: &'static str, task: F) -> Self
    where
        F: FnOnce(CancellationToken) -> U + Send + 'static,
        U: Future<Output = ()> + Send + 'static,
    {
        self.background.push((name, Box::new(move |stop| Box::pin(task(stop)))));
        self
    }
}
