//! A REST client of Souk, as a customer would write one: for the seeds and the test purchase of `make up`, and for tests.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::sync::Mutex;
use uuid::Uuid;

const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// How long a request is repeated while Souk is busy: on a machine that does much else, a call can take longer than its deadline.
const REPEAT_FOR: Duration = Duration::from_secs(60);
const REPEAT_AFTER: Duration = Duration::from_millis(100);
/// An access token is valid for five minutes.
const SIGN_IN_AFTER: Duration = Duration::from_secs(200);

/// The final states of an order that was not delivered.
const EXITS: [&str; 4] =
    ["ORDER_STATE_REJECTED", "ORDER_STATE_PAYMENT_FAILED", "ORDER_STATE_CANCELLED", "ORDER_STATE_EXPIRED"];

/// A response: its status, and its body as JSON.
#[derive(Debug, Clone)]
pub struct Response {
    pub status: StatusCode,
    pub body: Value,
}

impl Response {
    /// The reason of an error.
    pub fn reason(&self) -> &str {
        let details = self.body["details"].as_array().map(Vec::as_slice).unwrap_or_default();
        details.iter().find_map(|detail| detail["reason"].as_str()).unwrap_or("")
    }

    /// The fields that an error names.
    pub fn fields(&self) -> Vec<&str> {
        let details = self.body["details"].as_array().map(Vec::as_slice).unwrap_or_default();
        let violations = details.iter().filter_map(|detail| detail["fieldViolations"].as_array()).flatten();
        violations.filter_map(|violation| violation["field"].as_str()).collect()
    }

    pub fn ok(self) -> Result<Value> {
        if self.status.is_success() { Ok(self.body) } else { bail!("{}: {}", self.status, self.body) }
    }
}

/// A client at the edge, signed in or not.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    edge: String,
    session: Option<Arc<Session>>,
    is_patient: bool,
}

#[derive(Debug)]
struct Session {
    /// To sign in again when the token is old. None: only the token is known.
    credentials: Option<Value>,
    /// The token, and when it was received.
    token: Mutex<(String, Instant)>,
}

/// A password that is long enough, and new each time.
pub fn random_password() -> String {
    format!("{:032x}", rand::random::<u128>())
}

fn token_of(response: &Value) -> Result<String> {
    Ok(response["accessToken"].as_str().context("a session has an access token")?.to_owned())
}

/// The id of the product in a response.
pub fn product_id(response: &Value) -> Result<String> {
    Ok(response["product"]["productId"].as_str().context("a product has an id")?.to_owned())
}

impl Client {
    /// At the edge of this machine.
    pub fn new(port: u16) -> Self {
        Self::at(format!("http://127.0.0.1:{port}"))
    }

    /// At the edge with this URL.
    pub fn at(edge: String) -> Self {
        // The edge closes a connection that is idle for a minute: at that moment, a request would be lost.
        let http = reqwest::Client::builder()
            .timeout(Duration::from_secs(10))
            .pool_idle_timeout(Duration::from_secs(30))
            .build();
        let http = http.expect("a client with default TLS settings can be built");
        Self { http, edge, session: None, is_patient: true }
    }

    /// Makes each request once, whatever the response, to count or measure requests.
    pub fn impatient(self) -> Self {
        Self { is_patient: false, ..self }
    }

    /// A fresh customer, signed in.
    pub async fn customer(port: u16) -> Result<Self> {
        Self::new(port).register().await
    }

    /// Registers a customer, and signs in.
    pub async fn register(&self) -> Result<Self> {
        let (name, password) = (Uuid::now_v7().simple().to_string(), random_password());
        let email = format!("{name}@example.com");
        let body = json!({"email": email, "password": password, "displayName": "A customer"});
        self.send(Method::POST, "/v1/users", &name, Some(body)).await?.ok()?;
        self.sign_in(&email, &password).await
    }

    /// Where the customer gets text messages.
    pub async fn set_phone(&self, phone: &str) -> Result<()> {
        let body = json!({"phone": phone});
        self.send(Method::PATCH, "/v1/users/me", "", Some(body)).await?.ok().map(drop)
    }

    pub async fn sign_in(&self, email: &str, password: &str) -> Result<Self> {
        let credentials = json!({"email": email, "password": password});
        let response = self.post("/v1/sessions", credentials.clone()).await?.ok()?;
        let session =
            Session { credentials: Some(credentials), token: Mutex::new((token_of(&response)?, Instant::now())) };
        Ok(Self { session: Some(Arc::new(session)), ..self.clone() })
    }

    /// Signed in, with the response to signing in. This client does not sign in again.
    pub fn with_session(&self, response: &Value) -> Result<Self> {
        let session = Session { credentials: None, token: Mutex::new((token_of(response)?, Instant::now())) };
        Ok(Self { session: Some(Arc::new(session)), ..self.clone() })
    }

    /// An access token that is valid for a minute and a half, as long as the credentials are known. Empty without a session.
    pub async fn token(&self) -> Result<String> {
        let Some(session) = &self.session else { return Ok(String::new()) };
        // Clones of a client sign in once, while the others wait.
        let mut token = session.token.lock().await;
        if let Some(credentials) = session.credentials.as_ref().filter(|_| token.1.elapsed() > SIGN_IN_AFTER) {
            let anonymous = Self { session: None, ..self.clone() };
            let response = Box::pin(anonymous.post("/v1/sessions", credentials.clone())).await?.ok()?;
            *token = (token_of(&response)?, Instant::now());
        }
        Ok(token.0.clone())
    }

    pub async fn get(&self, path: &str) -> Result<Response> {
        self.send(Method::GET, path, "", None).await
    }

    /// With a new idempotency key.
    pub async fn post(&self, path: &str, body: Value) -> Result<Response> {
        self.send(Method::POST, path, &Uuid::now_v7().to_string(), Some(body)).await
    }

    /// Repeats the request while Souk is busy, under the same key, unless it is a write without one.
    pub async fn send(&self, method: Method, path: &str, key: &str, body: Option<Value>) -> Result<Response> {
        let is_repeated = self.is_patient && (method == Method::GET || !key.is_empty());
        let (begun, mut repeats) = (Instant::now(), 0);
        loop {
            let response = self.send_once(&method, path, key, body.as_ref()).await?;
            let is_busy = [StatusCode::SERVICE_UNAVAILABLE, StatusCode::GATEWAY_TIMEOUT].contains(&response.status)
                || repeats > 0 && response.reason() == "REQUEST_IN_PROGRESS";
            if !(is_repeated && is_busy) || begun.elapsed() > REPEAT_FOR {
                return Ok(response);
            }
            repeats += 1;
            tokio::time::sleep(REPEAT_AFTER).await;
        }
    }

    async fn send_once(&self, method: &Method, path: &str, key: &str, body: Option<&Value>) -> Result<Response> {
        let mut request = self.http.request(method.clone(), format!("{}{path}", self.edge));
        if self.session.is_some() {
            request = request.bearer_auth(self.token().await?);
        }
        if !key.is_empty() {
            request = request.header("idempotency-key", key);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let mut response = request.send().await?;
        let status = response.status();
        // Of a stream, the first message.
        let is_stream = response.headers().get("content-type").is_some_and(|it| it == "text/event-stream");
        let text = match is_stream {
            true => String::from_utf8_lossy(&response.chunk().await?.unwrap_or_default()).into_owned(),
            false => response.text().await?,
        };
        let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
        Ok(Response { status, body })
    }

    /// The products for sale: ids by SKU.
    pub async fn products(&self) -> Result<HashMap<String, String>> {
        let (mut products, mut token) = (HashMap::new(), String::new());
        loop {
            let page = self.get(&format!("/v1/products?pageSize=200&pageToken={token}")).await?.ok()?;
            for product in page["products"].as_array().context("a list")? {
                let sku = product["sku"].as_str().context("a product has a SKU")?;
                products.insert(sku.to_owned(), product["productId"].as_str().unwrap_or_default().to_owned());
            }
            token = page["nextPageToken"].as_str().unwrap_or_default().to_owned();
            if token.is_empty() {
                return Ok(products);
            }
        }
    }

    pub async fn create_product(&self, sku: &str, title: &str, price: (&str, i64)) -> Result<Response> {
        let (currency, minor) = price;
        let product = json!({"sku": sku, "title": title, "price": {"currency": currency, "minor": minor.to_string()}});
        self.post("/v1/products", json!({"product": product})).await
    }

    pub async fn reprice(&self, product_id: &str, (currency, minor): (&str, i64)) -> Result<Response> {
        let product = json!({"price": {"currency": currency, "minor": minor.to_string()}});
        self.send(Method::PATCH, &format!("/v1/products/{product_id}"), "", Some(product)).await
    }

    pub async fn receive(&self, sku: &str, units: u32) -> Result<Response> {
        self.post(&format!("/v1/stock/{sku}:receive"), json!({"quantity": units})).await
    }

    /// The units that can be bought; 0 for a SKU that was never received.
    pub async fn available(&self, sku: &str) -> Result<i64> {
        let response = self.get(&format!("/v1/stock/{sku}")).await?;
        if response.reason() == "SKU_NOT_FOUND" {
            return Ok(0);
        }
        let stock = response.ok()?;
        stock["stock"]["available"].as_str().and_then(|text| text.parse().ok()).context("a number of units")
    }

    /// Creates a product and receives units of it. Returns its id.
    pub async fn stock(&self, sku: &str, title: &str, price: (&str, i64), units: u32) -> Result<String> {
        let created = self.create_product(sku, title, price).await?.ok()?;
        if units > 0 {
            self.receive(sku, units).await?.ok()?;
        }
        product_id(&created)
    }

    pub async fn order(&self, product_id: &str, quantity: i32, payment_method: &str) -> Result<Response> {
        let items = json!([{"productId": product_id, "quantity": quantity}]);
        self.post("/v1/orders", json!({"items": items, "paymentMethod": payment_method})).await
    }

    pub async fn cancel(&self, order_id: &str) -> Result<Response> {
        self.post(&format!("/v1/orders/{order_id}:cancel"), json!({"reason": 1})).await
    }

    /// Waits until `wanted` holds for an order; fails if the order ends before that.
    pub async fn wait_for(
        &self,
        order_id: &str,
        patience: Duration,
        what: &str,
        wanted: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        let begun = Instant::now();
        loop {
            let order = self.get(&format!("/v1/orders/{order_id}")).await?.ok()?["order"].clone();
            if wanted(&order) {
                return Ok(order);
            }
            if EXITS.iter().any(|exit| order["state"] == *exit) {
                bail!("order {order_id} ended before it was {what}: {}, {}", order["state"], order["exitReason"]);
            }
            if begun.elapsed() > patience {
                bail!("order {order_id} was not {what} within {patience:?}: {order}");
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    pub async fn wait_for_state(&self, order_id: &str, state: &str) -> Result<Value> {
        let name = format!("ORDER_STATE_{state}");
        self.wait_for(order_id, Duration::from_secs(180), state, |order| order["state"] == name).await
    }
}
