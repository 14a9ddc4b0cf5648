//! A role: what one service puts on the wire. Services make one; the binary selects which to run.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

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
use crate::boot::step::{Did, Step};
use crate::event::consumer::{Consumer, Handler};
use crate::event::outbox::{Outbox, Wake};
use crate::rpc::idempotency;
use crate::rpc::policy::{Policies, Unreadable};
use crate::rpc::run_to_end::RunToEnd;
use crate::rpc::token::Verifier;

/// What every role of a process shares.
#[derive(Clone)]
pub struct Context {
    pub clock: Clock,
    pub verifier: Arc<Verifier>,
    pub policies: Policies,
    pub descriptors: &'static [u8],
    /// Handlers under way.
    pub tasks: TaskTracker,
}

impl Context {
    pub fn new(config: &Common, descriptors: &'static [u8]) -> Result<Self, Unreadable> {
        Ok(Self {
            clock: Clock::System,
            verifier: Arc::new(Verifier::new(&config.token_issuer, &config.token_audience)),
            policies: Policies::read(descriptors)?,
            descriptors,
            tasks: TaskTracker::new(),
        })
    }
}

const FORGET_EVERY: Duration = Duration::from_secs(60);

type Background = Box<dyn FnOnce(CancellationToken) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send>;

pub struct Role {
    /// Such as `order`.
    pub name: &'static str,
    /// The domain of its errors, such as `souk.order`.
    pub domain: &'static str,
    pub listen: SocketAddr,
    pub steps: Vec<Step>,
    pub consumers: Vec<Consumer>,
    pub outbox: Option<Outbox>,
    pub(crate) database: Option<PgPool>,
    pub(crate) clock: Clock,
    pub(crate) routes: RoutesBuilder,
    pub(crate) services: Vec<&'static str>,
    pub(crate) admin: axum::Router,
    pub(crate) background: Vec<(&'static str, Background)>,
    tasks: TaskTracker,
}

impl Role {
    pub fn new(role: roster::Role, context: &Context) -> Self {
        Self {
            name: role.name,
            domain: role.domain,
            listen: SocketAddr::from(([127, 0, 0, 1], role.port())),
            steps: vec![],
            consumers: vec![],
            outbox: None,
            database: None,
            clock: Clock::System,
            routes: RoutesBuilder::default(),
            services: vec![],
            admin: axum::Router::new(),
            background: vec![],
            tasks: context.tasks.clone(),
        }
    }

    /// Where it listens for gRPC, if not on the port that the roster gives it.
    pub fn listen_on(self, listen: SocketAddr) -> Self {
        Self { listen, ..self }
    }

    /// A service of unary RPCs: its handlers run to their end.
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
        self.routes.add_service(RunToEnd::new(self.tasks.clone(), self.domain).named_layer(service));
        self
    }

    /// A service whose RPCs stream: its handlers end when their caller goes, and hold no connection to a database.
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

    /// Its database, which it cannot serve without, and its clock, which the database may set: steps begin when it has. Old
    /// answers to requests are forgotten.
    pub fn database(mut self, db: &PgPool, clock: &Clock) -> Self {
        self.database = Some(db.clone());
        self.clock = clock.clone();
        self.step(Step::new("forget_answers", FORGET_EVERY, db, |db| async move {
            Ok(Did::any(idempotency::forget_old(&db).await?))
        }))
    }

    pub fn step(mut self, step: Step) -> Self {
        self.steps.push(step);
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

    /// Publishes the events in the outbox of this database. `published` wakes its relay.
    pub fn publish(mut self, db: &PgPool, published: &Wake) -> Self {
        self.outbox = Some(Outbox { db: db.clone(), wake: published.clone() });
        self
    }

    /// Pages on the admin port.
    pub fn admin(mut self, pages: axum::Router) -> Self {
        self.admin = self.admin.merge(pages);
        self
    }

    /// A task that ends when told to stop, and not before.
    pub fn background<F, U>(mut self, name: &'static str, task: F) -> Self
    where
        F: FnOnce(CancellationToken) -> U + Send + 'static,
        U: Future<Output = ()> + Send + 'static,
    {
        self.background.push((name, Box::new(move |stop| Box::pin(task(stop)))));
        self
    }
}
