//! The edge, as an operator calls it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chassis::Backoff;
use chassis::boot::config::first_line;
use contracts::souk::product::v1::product_service_client::ProductServiceClient;
use contracts::souk::product::v1::{Category, CreateProductRequest, ListCategoriesRequest};
use contracts::souk::user::v1::CreateSessionRequest;
use contracts::souk::user::v1::session_service_client::SessionServiceClient;
use tokio::sync::Mutex;
use tonic::metadata::AsciiMetadataValue;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Code, Request, Status};
use tonic_types::StatusExt;

use super::line::Categories;
use super::{Import, ImportError};

/// Of the five minutes that a token is valid.
const SIGNED_IN_FOR: Duration = Duration::from_secs(200);
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
    token: Mutex<Option<(Instant, AsciiMetadataValue)>>,
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
        let operator = Operator { email: import.email.clone(), password, token: Mutex::default() };
        let edge = Self { channel: endpoint.connect_lazy(), operator: Arc::new(operator) };
        match edge.token().await {
            Ok(_) => Ok(edge),
            Err(status) => Err(ImportError::Failed(format!("{}: signing in: {}", import.edge, status.message()))),
        }
    }

    pub(super) async fn create(&self, request: CreateProductRequest) -> Result<(), Status> {
        let (backoff, begun, mut failures) = (Backoff::new(PAUSES.0, PAUSES.1), Instant::now(), 0);
        loop {
            let Err(status) = self.create_once(request.clone()).await else { return Ok(()) };
            let may_pass = [Code::Unavailable, Code::DeadlineExceeded, Code::ResourceExhausted, Code::Aborted];
            if !may_pass.contains(&status.code()) || begun.elapsed() > REPEATED_FOR {
                return Err(status);
            }
            failures += 1;
            let wished = status.get_details_retry_info().and_then(|it| it.retry_delay).unwrap_or_default();
            tokio::time::sleep(backoff.after(failures).max(wished.min(REPEATED_FOR))).await;
        }
    }

    async fn create_once(&self, message: CreateProductRequest) -> Result<(), Status> {
        let mut request = Request::new(message);
        request.metadata_mut().insert("authorization", self.token().await?);
        ProductServiceClient::new(self.channel.clone()).create_product(request).await.map(drop)
    }

    /// A token that is valid for a while.
    async fn token(&self) -> Result<AsciiMetadataValue, Status> {
        let mut token = self.operator.token.lock().await;
        match &*token {
            Some((since, valid)) if since.elapsed() < SIGNED_IN_FOR => Ok(valid.clone()),
            _ => {
                let Operator { email, password, .. } = &*self.operator;
                let request = CreateSessionRequest {
                    email: email.clone(),
                    password: password.clone(),
                    device: "souk product import".to_owned(),
                    ..Default::default()
                };
                let session = SessionServiceClient::new(self.channel.clone()).create_session(request).await?;
                let header = format!("Bearer {}", session.into_inner().access_token).parse::<AsciiMetadataValue>();
                let mut header = header.map_err(|_| Status::internal("the access token is no header"))?;
                header.set_sensitive(true);
                *token = Some((Instant::now(), header.clone()));
                Ok(header)
            }
        }
    }

    pub(super) async fn categories(&self) -> Result<Categories, ImportError> {
        let (mut all, mut page_token) = (Vec::new(), String::new());
        for _ in 0..PAGES {
            let request = ListCategoriesRequest { page_size: PAGE, page_token, ..Default::default() };
            let page = ProductServiceClient::new(self.channel.clone()).list_categories(request).await;
            let page = page.map_err(|status| ImportError::Failed(format!("the categories: {}", status.message())))?;
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
    categories.iter().map(|it| (path(it), it.category_id.clone())).collect()
}
