//! The edge, as an operator calls it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chassis::Backoff;
use chassis::boot::config::first_line;
use contracts::souk::product::v1::product_service_client::ProductServiceClient;
use contracts::souk::product::v1::{Category, CreateProductRequest, ListCategoriesRequest};
use contracts::souk::user::v1::session_service_client::SessionServiceClient;
use contracts::souk::user::v1::{CreateSessionRequest, DeleteSessionRequest, RefreshSessionRequest};
use tokio::sync::Mutex;
use tonic::metadata::AsciiMetadataValue;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Code, Request, Status};
use tonic_types::StatusExt;

use super::line::Categories;
use super::{Import, ImportError};

/// Of the five minutes that a token is valid.
const VALID_FOR: Duration = Duration::from_secs(200);
const CALL: Duration = Duration::from_secs(5);
/// How long a call is repeated that may succeed later, as when a limit is reached or a replica restarts.
const REPEATED_FOR: Duration = Duration::from_secs(60);
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
const PAGE: i32 = 200;
/// More pages than all categories have.
const PAGES: usize = 100;

#[derive(Clone)]
pub(super) struct Edge {
    channel: Channel,
    operator: Arc<Operator>,
}

struct Operator {
    email: String,
    password: String,
    session: Mutex<Option<Session>>,
}

struct Session {
    since: Instant,
    /// With the access token.
    header: AsciiMetadataValue,
    refresh_token: String,
}

impl Edge {
    /// Signs in, so that a wrong password is known before the file is read.
    pub(super) async fn connect(import: &Import) -> Result<Self, ImportError> {
        use ImportError::Given;
        let password = first_line(&import.password_file).map_err(|why| Given(format!("--password-file: {why}")))?;
        let endpoint = Endpoint::from_shared(import.edge.clone());
        let mut endpoint =
            endpoint.map_err(|error| Given(format!("--edge: {error}")))?.timeout(CALL).connect_timeout(CALL);
        if import.edge.starts_with("https://") {
            let authorities = std::fs::read(&import.ca_file);
            let authorities =
                authorities.map_err(|why| Given(format!("--ca-file {}: {why}", import.ca_file.display())))?;
            let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(authorities));
            endpoint = endpoint.tls_config(tls).map_err(|error| Given(format!("--ca-file: {error}")))?;
        }
        let operator = Operator { email: import.email.clone(), password, session: Mutex::default() };
        let edge = Self { channel: endpoint.connect_lazy(), operator: Arc::new(operator) };
        match repeat(|| edge.signed(())).await {
            Ok(_) => Ok(edge),
            Err(status) => Err(ImportError::Failed(format!("{}: signing in: {}", import.edge, status.message()))),
        }
    }

    /// After an attempt without a response, the product may exist because of it: that is not told from one that existed before.
    pub(super) async fn create(&self, request: CreateProductRequest) -> Result<(), Status> {
        repeat(|| self.create_once(request.clone())).await
    }

    async fn create_once(&self, message: CreateProductRequest) -> Result<(), Status> {
        let request = self.signed(message).await?;
        ProductServiceClient::new(self.channel.clone()).create_product(request).await.map(drop)
    }

    /// With an access token that is valid for a while.
    async fn signed<T>(&self, message: T) -> Result<Request<T>, Status> {
        let mut session = self.operator.session.lock().await;
        let valid = match session.take() {
            Some(valid) if valid.since.elapsed() < VALID_FOR => valid,
            Some(old) => match self.refresh(&old).await {
                Err(status) if status.code() == Code::Unauthenticated => self.sign_in().await?,
                Err(status) => {
                    *session = Some(old);
                    return Err(status);
                }
                Ok(new) => new,
            },
            None => self.sign_in().await?,
        };
        let mut request = Request::new(message);
        request.metadata_mut().insert("authorization", valid.header.clone());
        *session = Some(valid);
        Ok(request)
    }

    async fn sign_in(&self) -> Result<Session, Status> {
        let Operator { email, password, .. } = &*self.operator;
        let request = CreateSessionRequest {
            email: email.clone(),
            password: password.clone(),
            device: "souk product import".to_owned(),
            ..Default::default()
        };
        let created = self.sessions().create_session(request).await?.into_inner();
        Session::new(&created.access_token, created.refresh_token)
    }

    async fn refresh(&self, session: &Session) -> Result<Session, Status> {
        let request = RefreshSessionRequest { refresh_token: session.refresh_token.clone() };
        let refreshed = self.sessions().refresh_session(request).await?.into_inner();
        Session::new(&refreshed.access_token, refreshed.refresh_token)
    }

    /// Ends the session, as a user has a limited number. One that is left ends by itself later, so a failure is no error.
    pub(super) async fn sign_out(&self) {
        let _ = repeat(|| async {
            let request = self.signed(DeleteSessionRequest { session_id: "current".to_owned() }).await?;
            self.sessions().delete_session(request).await
        })
        .await;
    }

    fn sessions(&self) -> SessionServiceClient<Channel> {
        SessionServiceClient::new(self.channel.clone())
    }

    pub(super) async fn categories(&self) -> Result<Categories, ImportError> {
        let (mut all, mut page_token) = (Vec::new(), String::new());
        for _ in 0..PAGES {
            let request = ListCategoriesRequest { page_size: PAGE, page_token, ..Default::default() };
            let page = repeat(|| {
                let (mut client, request) = (ProductServiceClient::new(self.channel.clone()), request.clone());
                async move { client.list_categories(request).await }
            });
            let page =
                page.await.map_err(|status| ImportError::Failed(format!("the categories: {}", status.message())))?;
            let page = page.into_inner();
            all.extend(page.categories);
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
        Ok(paths(&all))
    }
}

impl Session {
    fn new(access_token: &str, refresh_token: String) -> Result<Self, Status> {
        let header = format!("Bearer {access_token}").parse::<AsciiMetadataValue>();
        let mut header = header.map_err(|_| Status::internal("the access token is no header"))?;
        header.set_sensitive(true);
        Ok(Self { since: Instant::now(), header, refresh_token })
    }
}

/// Repeats a call that may succeed later.
pub(crate) async fn repeat<T, F>(call: impl Fn() -> F) -> Result<T, Status>
where
    F: Future<Output = Result<T, Status>>,
{
    let (backoff, begun) = (Backoff::new(PAUSES.0, PAUSES.1), Instant::now());
    let mut failures = 0;
    loop {
        let status = match call().await {
            Ok(response) => return Ok(response),
            Err(status) => status,
        };
        if !may_pass(&status) || begun.elapsed() > REPEATED_FOR {
            return Err(status);
        }
        failures += 1;
        let wished = status.get_details_retry_info().and_then(|it| it.retry_delay).unwrap_or_default();
        tokio::time::sleep(backoff.after(failures).max(wished.min(REPEATED_FOR))).await;
    }
}

fn may_pass(status: &Status) -> bool {
    match status.code() {
        Code::Unavailable | Code::DeadlineExceeded | Code::Aborted => true,
        Code::ResourceExhausted => !is_too_large(status),
        // Of our own client: its time was up, or the connection broke during the call. A server gives a reason.
        Code::Cancelled | Code::Unknown | Code::Internal => status.get_details_error_info().is_none(),
        _ => false,
    }
}

fn has_reason(status: &Status, reason: &str) -> bool {
    status.get_details_error_info().is_some_and(|it| it.reason == reason)
}

pub(crate) fn is_taken(status: &Status) -> bool {
    has_reason(status, "SKU_TAKEN")
}

/// For the edge, which refuses it each time.
pub(crate) fn is_too_large(status: &Status) -> bool {
    has_reason(status, "BODY_TOO_LARGE")
}

/// Names may have what separates them in a path, so two categories may have the same one.
pub(crate) fn paths(categories: &[Category]) -> Categories {
    let by_id: HashMap<_, _> = categories.iter().map(|it| (it.category_id.as_str(), it)).collect();
    let path = |category: &Category| {
        let (mut names, mut parent_id) = (vec![category.name.as_str()], category.parent_id.as_str());
        // The tree may have changed between two pages; it is never this deep.
        while let Some(parent) = by_id.get(parent_id).filter(|_| names.len() < 100) {
            names.push(&parent.name);
            parent_id = &parent.parent_id;
        }
        names.reverse();
        names.join(" > ")
    };
    let mut paths = Categories::new();
    for category in categories {
        paths.entry(path(category)).or_default().push(category.category_id.clone());
    }
    paths
}
