//! The cost of our layers: compares the CPU per request of GetProduct with that of a bare tonic service, which reads the same row
//! with the same pool. Each is a process; they are called in turns.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use contracts::souk::product::v1::product_service_client::ProductServiceClient;
use contracts::souk::product::v1::product_service_server::{ProductService, ProductServiceServer};
use contracts::souk::product::v1::*;
use contracts::souk::r#type::v1::Money;
use prost_types::Timestamp;
use sqlx::postgres::PgPoolOptions;
use sqlx::{PgPool, Row};
use time::OffsetDateTime;
use tokio::process::{Child, Command};
use tokio::task::JoinSet;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Status};
use uuid::Uuid;

use super::{Process, median};
use crate::roles;
use stack::layout::Layout;
use stack::parts;

const ROUNDS: usize = 5;
const REQUESTS: u32 = 12_000;
const AT_ONCE: u32 = 16;
const BARE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 14_901);
const ROLE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 14_903);
const ROLE_ADMIN: &str = "127.0.0.1:14913";
const STARTS_WITHIN: Duration = Duration::from_secs(10);

/// Uses the databases of a running stack.
pub async fn run(layout: &Layout, product_id: &str) -> Result<()> {
    let database = layout.database("souk_product", "souk_product")?;
    let [bare, role] = [BARE, ROLE].map(|address| address.to_string());
    let settings = [
        ("PRODUCT_LISTEN", role.as_str()),
        // The bare service reads the database, too.
        ("PRODUCT_CACHE_LIFETIME", "0s"),
        ("SOUK_ADMIN_LISTEN", ROLE_ADMIN),
        ("SOUK_LOG", "error"),
    ];
    let bare = start(Command::new(std::env::current_exe()?).args(["bare-product", &bare, &database]))?;
    let role =
        start(Command::new(layout.program("souk")).arg("product").envs(parts::environment(layout)).envs(settings))?;
    let bare_client = connect(&plain(BARE)?).await?;
    let role_client = connect(&roles::endpoint(&layout.pki, "dev", ROLE.port())?).await?;
    // Opens connections and fills caches.
    ask(&bare_client, product_id).await?;
    ask(&role_client, product_id).await?;
    let (mut bare_costs, mut role_costs) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        bare_costs.push(cost(&bare, &bare_client, product_id).await?);
        role_costs.push(cost(&role, &role_client, product_id).await?);
    }
    let (bare, role) = (median(&mut bare_costs), median(&mut role_costs));
    println!(
        "GetProduct: {role:.1} us CPU per request; a bare tonic service {bare:.1} us; the layers {:.1} us",
        role - bare
    );
    Ok(())
}

fn start(command: &mut Command) -> Result<Child> {
    Ok(command.kill_on_drop(true).stdin(Stdio::null()).spawn()?)
}

/// A server without TLS.
pub(super) fn plain(address: SocketAddr) -> Result<Endpoint> {
    Ok(Endpoint::from_shared(format!("http://{address}"))?)
}

pub(super) async fn connect(server: &Endpoint) -> Result<ProductServiceClient<Channel>> {
    let begun = Instant::now();
    loop {
        match server.connect().await {
            Ok(channel) => return Ok(ProductServiceClient::new(channel)),
            Err(error) if begun.elapsed() > STARTS_WITHIN => bail!("no server answers at {}: {error}", server.uri()),
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

async fn ask(client: &ProductServiceClient<Channel>, product_id: &str) -> Result<()> {
    let mut calls = JoinSet::new();
    for _ in 0..AT_ONCE {
        let (mut client, product_id) = (client.clone(), product_id.to_owned());
        calls.spawn(async move {
            for _ in 0..REQUESTS / AT_ONCE {
                client.get_product(GetProductRequest { product_id: product_id.clone() }).await?;
            }
            anyhow::Ok(())
        });
    }
    calls.join_all().await.into_iter().collect()
}

/// Microseconds of CPU per request.
async fn cost(server: &Child, client: &ProductServiceClient<Channel>, product_id: &str) -> Result<f64> {
    let pid = server.id().context("the server runs")?;
    let before = Process::read(pid)?.cpu_seconds;
    ask(client, product_id).await?;
    Ok((Process::read(pid)?.cpu_seconds - before) * 1e6 / f64::from(REQUESTS))
}

/// Serves the bare service until its process is killed.
pub async fn serve_bare(listen: SocketAddr, database: &str) -> Result<()> {
    let db = PgPoolOptions::new().max_connections(10).connect(database).await?;
    Ok(Server::builder().add_service(ProductServiceServer::new(Bare { db })).serve(listen).await?)
}

struct Bare {
    db: PgPool,
}

type RpcResult<T> = Result<Response<T>, Status>;

fn unexpected(error: impl std::fmt::Display) -> Status {
    Status::internal(error.to_string())
}

fn timestamp(at: OffsetDateTime) -> Timestamp {
    Timestamp { seconds: at.unix_timestamp(), nanos: at.nanosecond().cast_signed() }
}

fn not_measured<T>() -> RpcResult<T> {
    Err(Status::unimplemented("only GetProduct is measured"))
}

#[tonic::async_trait]
impl ProductService for Bare {
    async fn get_product(&self, request: Request<GetProductRequest>) -> RpcResult<GetProductResponse> {
        let product_id = Uuid::parse_str(&request.into_inner().product_id).map_err(unexpected)?;
        let row = sqlx::query(
            "select product_id, sku, title, description, currency, price_minor, category_id, language, image_urls, image_alts, state,
               version, created_at, updated_at
             from product where product_id = $1",
        )
        .bind(product_id)
        .fetch_one(&self.db)
        .await
        .map_err(unexpected)?;
        let state: String = row.get("state");
        let state = if state == "ARCHIVED" { ProductState::Archived } else { ProductState::Active };
        let images = row.get::<Vec<String>, _>("image_urls").into_iter().zip(row.get::<Vec<String>, _>("image_alts"));
        let product = Product {
            product_id: row.get::<Uuid, _>("product_id").to_string(),
            sku: row.get("sku"),
            title: row.get("title"),
            description: row.get("description"),
            price: Some(Money::new(row.get::<String, _>("currency"), row.get("price_minor"))),
            state: state.into(),
            create_time: Some(timestamp(row.get("created_at"))),
            update_time: Some(timestamp(row.get("updated_at"))),
            etag: format!("v{}", row.get::<i64, _>("version")),
            category_id: row.get::<Option<Uuid>, _>("category_id").map(|it| it.to_string()).unwrap_or_default(),
            language: row.get("language"),
            images: images.map(|(url, alt)| Image { url, alt }).collect(),
        };
        Ok(Response::new(GetProductResponse { product: Some(product) }))
    }

    async fn create_product(&self, _: Request<CreateProductRequest>) -> RpcResult<CreateProductResponse> {
        not_measured()
    }

    async fn update_product(&self, _: Request<UpdateProductRequest>) -> RpcResult<UpdateProductResponse> {
        not_measured()
    }

    async fn archive_product(&self, _: Request<ArchiveProductRequest>) -> RpcResult<ArchiveProductResponse> {
        not_measured()
    }

    async fn batch_get_products(&self, _: Request<BatchGetProductsRequest>) -> RpcResult<BatchGetProductsResponse> {
        not_measured()
    }

    async fn list_products(&self, _: Request<ListProductsRequest>) -> RpcResult<ListProductsResponse> {
        not_measured()
    }

    async fn list_archived_products(
        &self,
        _: Request<ListArchivedProductsRequest>,
    ) -> RpcResult<ListArchivedProductsResponse> {
        not_measured()
    }

    async fn search_products(&self, _: Request<SearchProductsRequest>) -> RpcResult<SearchProductsResponse> {
        not_measured()
    }

    async fn create_category(&self, _: Request<CreateCategoryRequest>) -> RpcResult<CreateCategoryResponse> {
        not_measured()
    }

    async fn update_category(&self, _: Request<UpdateCategoryRequest>) -> RpcResult<UpdateCategoryResponse> {
        not_measured()
    }

    async fn list_categories(&self, _: Request<ListCategoriesRequest>) -> RpcResult<ListCategoriesResponse> {
        not_measured()
    }

    async fn quote_items(&self, _: Request<QuoteItemsRequest>) -> RpcResult<QuoteItemsResponse> {
        not_measured()
    }
}
