//! Simulates the provider of text messages: Twilio's Messages API, on a port of its own.
//!
//! `POST /2010-04-01/Accounts/{account}/Messages.json` with `To`, `From` and `Body` as a form, and basic authentication with the
//! account (`AC...`) and a token. `GET` of the same lists the last messages, newest first, of one number with `To`. It needs the
//! same authentication. Twilio's numbers for tests have their outcomes: `+15005550001` is invalid (21211), `+15005550004` has
//! unsubscribed (21610), `+15005550009` is no mobile (21614). `POST /_sms?status=503` answers all messages with this status from
//! then on, and without `status` no longer.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};

use axum::extract::{DefaultBodyLimit, Form, Path, Query, State};
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

/// Older messages are forgotten.
const KEPT: usize = 10_000;
/// The most in one list.
const LISTED: usize = 1_000;
/// Twilio's limit, in characters.
const LONGEST: usize = 1_600;
const LARGEST_BODY: usize = 16 * 1024;

/// The messages that were accepted.
#[derive(Clone, Default)]
pub struct Sms(Arc<Mutex<Shared>>);

#[derive(Default)]
struct Shared {
    messages: VecDeque<Value>,
    failure: Option<StatusCode>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct NewMessage {
    to: String,
    from: String,
    body: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Filter {
    to: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Failure {
    status: Option<u16>,
}

type Reply = (StatusCode, Json<Value>);

impl Sms {
    pub fn router(&self) -> Router {
        Router::new()
            .route("/2010-04-01/Accounts/{account}/Messages.json", post(create).get(list))
            .route("/_sms", post(fail))
            .layer(DefaultBodyLimit::max(LARGEST_BODY))
            .with_state(self.clone())
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.0.lock().expect("nothing panics while it holds this lock")
    }
}

async fn fail(State(sms): State<Sms>, Query(failure): Query<Failure>) -> Reply {
    let Ok(status) = failure.status.map(StatusCode::from_u16).transpose() else {
        return refuse(StatusCode::BAD_REQUEST, 20001, "it is not a status");
    };
    sms.shared().failure = status;
    (StatusCode::OK, Json(json!({})))
}

async fn create(
    State(sms): State<Sms>,
    Path(account): Path<String>,
    headers: HeaderMap,
    Form(message): Form<NewMessage>,
) -> Reply {
    if let Some(status) = sms.shared().failure {
        return refuse(status, 20500, "it was told to fail");
    }
    if !is_authenticated(&headers) || !account.starts_with("AC") {
        return refuse(StatusCode::UNAUTHORIZED, 20003, "Authenticate");
    }
    let NewMessage { to, from, body } = message;
    let digits = to.strip_prefix('+').filter(|rest| rest.bytes().all(|byte| byte.is_ascii_digit()));
    let is_number = digits.is_some_and(|digits| (7..=15).contains(&digits.len()));
    match to.as_str() {
        "+15005550004" => return refuse(StatusCode::BAD_REQUEST, 21610, "the recipient has unsubscribed"),
        "+15005550009" => return refuse(StatusCode::BAD_REQUEST, 21614, "'To' number is not a valid mobile number"),
        "+15005550001" => return refuse(StatusCode::BAD_REQUEST, 21211, "Invalid 'To' Phone Number"),
        _ if !is_number => return refuse(StatusCode::BAD_REQUEST, 21211, "Invalid 'To' Phone Number"),
        _ => {}
    }
    if from.is_empty() || body.is_empty() {
        return refuse(StatusCode::BAD_REQUEST, 21602, "'From' and 'Body' are required");
    }
    if body.chars().count() > LONGEST {
        return refuse(StatusCode::BAD_REQUEST, 21617, "the body is longer than 1600 characters");
    }
    let sid = format!("SM{}", Uuid::now_v7().simple());
    let message = json!({"sid": sid, "account_sid": account, "to": to, "from": from, "body": body, "status": "queued"});
    let mut shared = sms.shared();
    shared.messages.push_front(message.clone());
    shared.messages.truncate(KEPT);
    (StatusCode::CREATED, Json(message))
}

async fn list(State(sms): State<Sms>, headers: HeaderMap, Query(filter): Query<Filter>) -> Reply {
    if !is_authenticated(&headers) {
        return refuse(StatusCode::UNAUTHORIZED, 20003, "Authenticate");
    }
    let shared = sms.shared();
    let wanted = |message: &&Value| filter.to.as_ref().is_none_or(|to| message["to"] == to.as_str());
    let messages: Vec<_> = shared.messages.iter().filter(wanted).take(LISTED).collect();
    (StatusCode::OK, Json(json!({ "messages": messages })))
}

fn is_authenticated(headers: &HeaderMap) -> bool {
    headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).is_some_and(|value| value.starts_with("Basic "))
}

fn refuse(status: StatusCode, code: u32, message: &str) -> Reply {
    (status, Json(json!({"code": code, "message": message, "status": status.as_u16()})))
}
