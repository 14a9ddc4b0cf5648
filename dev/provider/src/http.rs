//! The HTTP routes: they check API keys, parse parameters and return JSON.

use std::time::Duration;

use axum::body::Body;
use axum::extract::{DefaultBodyLimit, FromRequest, Path, Request as HttpRequest, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, Uri};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::Provider;
use crate::command::{Command, Confirmation, NewIntent, NewRefund, Request, parse_cancellation, parse_intent_id};
use crate::error::Error;
use crate::idempotency::Key;
use crate::limits;
use crate::list::list_intents;
use crate::outcome::PaymentMethod;
use crate::params::Params;
use crate::refund::{RefundId, RefundStatus};
use crate::webhook::Delivery;

/// Stripe's maximum.
pub(crate) const LARGEST_LIST: u64 = 100;
const LARGEST_BODY: usize = 64 * 1024;
/// The most rows of the ledger in one response.
const LARGEST_PAGE: u64 = 1_000;

pub(crate) fn router(provider: Provider) -> Router {
    let stripe = Router::new()
        .route("/v1/payment_intents", post(create_intent).get(list_intents))
        .route("/v1/payment_intents/{id}", get(get_intent))
        .route("/v1/payment_intents/{id}/confirm", post(confirm_intent))
        .route("/v1/payment_intents/{id}/capture", post(capture_intent))
        .route("/v1/payment_intents/{id}/cancel", post(cancel_intent))
        .route("/v1/refunds", post(create_refund).get(list_refunds))
        .route("/v1/refunds/{id}", get(get_refund))
        .route_layer(middleware::from_fn_with_state(provider.clone(), limits::admit))
        .route_layer(middleware::from_fn(require_api_key));
    Router::new()
        .merge(stripe)
        .route("/_ledger", get(list_movements))
        .route("/_refunds/{id}", post(set_refund))
        .route("/_webhooks", post(set_webhooks))
        .route("/_limits", get(limits::show).post(limits::set))
        .fallback(refuse_url)
        .method_not_allowed_fallback(refuse_url)
        .layer(DefaultBodyLimit::max(LARGEST_BODY))
        .layer(middleware::map_response(add_request_id))
        .with_state(provider)
}

/// A status and a body; a replay has the same bytes.
pub(crate) struct ApiResponse {
    status: StatusCode,
    body: String,
    source: Source,
}

enum Source {
    First,
    Replayed,
}

impl ApiResponse {
    pub(crate) fn new(status: StatusCode, body: Value) -> ApiResponse {
        ApiResponse { status, body: body.to_string(), source: Source::First }
    }

    pub(crate) fn replayed(self) -> ApiResponse {
        ApiResponse { source: Source::Replayed, ..self }
    }
}

impl IntoResponse for ApiResponse {
    fn into_response(self) -> Response {
        let mut response = (self.status, self.body).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Source::Replayed = self.source {
            headers.insert(HeaderName::from_static("idempotent-replayed"), HeaderValue::from_static("true"));
        }
        response
    }
}

/// A POST: its parameters, and its idempotency key if it has one.
struct Call {
    key: Option<Key>,
    params: Params,
}

impl<S: Send + Sync> FromRequest<S> for Call {
    type Rejection = Error;

    async fn from_request(request: HttpRequest<Body>, _: &S) -> Result<Call, Error> {
        let path = request.uri().path().to_owned();
        let name = request.headers().get("idempotency-key").cloned();
        let params = Params::read(request).await?;
        let key = match name {
            None => None,
            Some(name) => Some(Key::new(name.to_str().map_err(|_| Error::KeyLength)?, &path, params.pairs())?),
        };
        Ok(Call { key, params })
    }
}

impl Call {
    fn into_request(self, command: Command) -> Result<Request, Error> {
        self.params.end()?;
        Ok(Request { key: self.key, command })
    }
}

impl<S: Send + Sync> FromRequest<S> for Params {
    type Rejection = Error;

    async fn from_request(request: HttpRequest<Body>, _: &S) -> Result<Params, Error> {
        Params::read(request).await
    }
}

async fn create_intent(State(provider): State<Provider>, mut call: Call) -> Result<ApiResponse, Error> {
    let command = Command::Create(NewIntent::parse(&mut call.params)?);
    provider.perform(call.into_request(command)?).await
}

async fn confirm_intent(
    State(provider): State<Provider>,
    Path(id): Path<String>,
    mut call: Call,
) -> Result<ApiResponse, Error> {
    let command = Command::Confirm(parse_intent_id(id, "intent")?, Confirmation::parse(&mut call.params)?);
    provider.perform(call.into_request(command)?).await
}

async fn capture_intent(
    State(provider): State<Provider>,
    Path(id): Path<String>,
    mut call: Call,
) -> Result<ApiResponse, Error> {
    let amount = call.params.take_amount("amount_to_capture")?;
    let command = Command::Capture(parse_intent_id(id, "intent")?, amount);
    provider.perform(call.into_request(command)?).await
}

async fn cancel_intent(
    State(provider): State<Provider>,
    Path(id): Path<String>,
    mut call: Call,
) -> Result<ApiResponse, Error> {
    let command = Command::Cancel(parse_intent_id(id, "intent")?, parse_cancellation(&mut call.params)?);
    provider.perform(call.into_request(command)?).await
}

async fn create_refund(State(provider): State<Provider>, mut call: Call) -> Result<ApiResponse, Error> {
    let command = Command::Refund(NewRefund::parse(&mut call.params)?);
    provider.perform(call.into_request(command)?).await
}

async fn get_intent(
    State(provider): State<Provider>,
    Path(id): Path<String>,
    mut params: Params,
) -> Result<Json<Value>, Error> {
    let expanded = params.take_one_of("expand[]", &["latest_charge"])?;
    params.end()?;
    let ledger = provider.ledger();
    let intent = ledger.intent(parse_intent_id(id, "intent")?)?;
    Ok(Json(if expanded.is_some() { intent.to_json_with_charge() } else { intent.to_json() }))
}

async fn get_refund(
    State(provider): State<Provider>,
    Path(id): Path<String>,
    params: Params,
) -> Result<Json<Value>, Error> {
    params.end()?;
    let id = RefundId::parse(&id).ok_or(Error::NotFound { what: "refund", param: "id", id })?;
    let ledger = provider.ledger();
    let refund = ledger.refund(id)?;
    Ok(Json(refund.to_json(ledger.intent(refund.intent)?)))
}

/// The refunds of an intent, newest first.
async fn list_refunds(State(provider): State<Provider>, mut params: Params) -> Result<Json<Value>, Error> {
    let id = params.take("payment_intent").ok_or(Error::ParameterMissing("payment_intent"))?;
    let id = parse_intent_id(id, "payment_intent")?;
    let after = params.take("starting_after");
    let limit = params.take_count("limit", 1, LARGEST_LIST)?.unwrap_or(10) as usize;
    params.end()?;
    let ledger = provider.ledger();
    let intent = ledger.intent(id)?;
    let is_listed = intent.payment_method != Some(PaymentMethod::RefundUnlisted);
    let mut rest = ledger.refunds(id).filter(|_| is_listed).peekable();
    if let Some(after) = after {
        while rest.next().is_some_and(|refund| refund.id.to_string() != after) {}
    }
    let page: Vec<_> = rest.by_ref().take(limit).map(|refund| refund.to_json(intent)).collect();
    let more = rest.peek().is_some();
    Ok(Json(json!({"object": "list", "data": page, "has_more": more, "url": "/v1/refunds"})))
}

/// Accepts any key that looks like one of Stripe's.
async fn require_api_key(request: HttpRequest<Body>, next: Next) -> Result<Response, Error> {
    let key = request.headers().get(AUTHORIZATION).ok_or(Error::ApiKeyMissing)?;
    match key.to_str().ok().and_then(|text| text.strip_prefix("Bearer ")) {
        Some(key) if key.starts_with("sk_") => Ok(next.run(request).await),
        _ => Err(Error::ApiKeyInvalid),
    }
}

async fn refuse_url(method: Method, uri: Uri) -> Error {
    Error::UrlUnknown(format!("{method}: {}", uri.path()))
}

/// Every response has an id, as Stripe's.
async fn add_request_id(mut response: Response) -> Response {
    let id = format!("req_{}", Uuid::now_v7().simple());
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(HeaderName::from_static("request-id"), id);
    }
    response
}

/// Sets the status of a refund, as the bank or the customer would cause it.
async fn set_refund(
    State(provider): State<Provider>,
    Path(id): Path<String>,
    mut params: Params,
) -> Result<StatusCode, Error> {
    let id = RefundId::parse(&id).ok_or(Error::NotFound { what: "refund", param: "id", id })?;
    let status = params.take("status").ok_or(Error::ParameterMissing("status"))?;
    let why = format!("{status} is not a status of a refund.");
    let status = RefundStatus::parse(&status).ok_or(Error::ParameterInvalid { param: "status", why })?;
    let failure_reason = params.take_text("failure_reason", 100)?;
    params.end()?;
    provider.ledger().set_refund(id, status, failure_reason)?;
    Ok(StatusCode::NO_CONTENT)
}

async fn set_webhooks(State(provider): State<Provider>, mut params: Params) -> Result<StatusCode, Error> {
    let delay = params.take_count("delay_ms", 0, 600_000)?.unwrap_or(0);
    let times = params.take_count("times", 0, 10)?.unwrap_or(1);
    let order = params.take_one_of("order", &["as_it_came", "backwards"])?;
    let reversed = order.as_deref() == Some("backwards");
    params.end()?;
    let ledger = provider.ledger();
    let webhooks = ledger.webhooks.as_ref().ok_or(Error::UrlUnknown("POST: /_webhooks".to_owned()))?;
    webhooks.set_delivery(Delivery { delay: Duration::from_millis(delay), times: times as u32, reversed });
    Ok(StatusCode::NO_CONTENT)
}

/// The parameters of a page: the number of the row before it, and the most rows.
fn take_rows(mut params: Params) -> Result<(usize, usize), Error> {
    let after = params.take_count("after", 0, u64::MAX)?.unwrap_or(0);
    let limit = params.take_count("limit", 1, LARGEST_PAGE)?.unwrap_or(LARGEST_PAGE);
    params.end()?;
    Ok((usize::try_from(after).unwrap_or(usize::MAX), limit as usize))
}

/// The rows of a page, and the numbers of the rows before it and at its end.
fn page<T>(rows: &[T], after: usize, limit: usize) -> (&[T], usize, usize) {
    let from = after.min(rows.len());
    let to = from.saturating_add(limit).min(rows.len());
    (&rows[from..to], from, to)
}

async fn list_movements(State(provider): State<Provider>, params: Params) -> Result<Json<Value>, Error> {
    let (after, limit) = take_rows(params)?;
    let ledger = provider.ledger();
    let all = ledger.movements();
    let (rows, from, to) = page(all, after, limit);
    let mut entries = Vec::with_capacity(rows.len());
    for (at, movement) in rows.iter().enumerate() {
        let intent = ledger.intent(movement.intent)?;
        entries.push(json!({
            "seq": from + at + 1,
            "kind": movement.kind,
            "attempt": movement.attempt,
            "intent": movement.intent,
            "refund": movement.refund,
            "amount": movement.amount,
            "currency": intent.currency,
            "metadata": intent.metadata,
            "at": movement.at,
        }));
    }
    Ok(Json(json!({"entries": entries, "next": to, "more": to < all.len()})))
}
