//! Calls any RPC with a request in JSON: over REST, over gRPC, and at the role.

use anyhow::{Context, Result, bail};
use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, Kind, MethodDescriptor};
use reqwest::Method;
use serde_json::{Value, json};
use stack::client::Client;
use testkit::Raw;
use tonic::transport::Channel;
use tonic::{Code, Request, Response};
use tonic_types::StatusExt;
use uuid::Uuid;

/// What a caller sees: the code, the reason of an error, and the text of the message.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) code: Code,
    pub(super) reason: String,
    /// Over REST the whole body; over gRPC the response as JSON, or the message of an error.
    pub(super) text: String,
}

/// The HTTP status that says the same.
fn status_of(code: Code) -> u16 {
    match code {
        Code::Ok => 200,
        Code::InvalidArgument | Code::FailedPrecondition => 400,
        Code::Unauthenticated => 401,
        Code::PermissionDenied => 403,
        Code::NotFound | Code::Unimplemented => 404,
        Code::AlreadyExists | Code::Aborted => 409,
        Code::ResourceExhausted => 429,
        Code::Unavailable => 503,
        _ => 500,
    }
}

/// The binding of an RPC: its method, its template, and the field of the body.
fn binding(pool: &DescriptorPool, rpc: &MethodDescriptor) -> Option<(Method, String, String)> {
    let extension = pool.get_extension_by_name("google.api.http")?;
    let options = rpc.options();
    let http = options.has_extension(&extension).then(|| options.get_extension(&extension))?;
    let http = http.as_message()?;
    let verb = ["get", "put", "post", "delete", "patch"].into_iter().find(|verb| http.has_field_by_name(verb))?;
    let text = |name: &str| http.get_field_by_name(name).and_then(|it| it.as_str().map(str::to_owned));
    Some((Method::from_bytes(verb.to_uppercase().as_bytes()).ok()?, text(verb)?, text("body")?))
}

/// Over REST. An RPC without a binding is tried by its path.
pub(super) async fn rest(
    client: &Client,
    pool: &DescriptorPool,
    rpc: &MethodDescriptor,
    request: &Value,
) -> Result<Outcome> {
    let mut rest = request.clone();
    let (method, path, body) = match binding(pool, rpc) {
        None => {
            let path = format!("/{}/{}", rpc.parent_service().full_name(), rpc.name());
            (Method::POST, path, Some(rest))
        }
        Some((method, template, body)) => {
            let mut path = fill(&template, rpc, &mut rest)?;
            let body = match body.as_str() {
                "" => None,
                "*" => Some(std::mem::take(&mut rest)),
                field => {
                    let field = rpc.input().get_field_by_name(field).context("the field of the body")?;
                    let is_raw = matches!(field.kind(), Kind::Message(it) if it.full_name() == "google.api.HttpBody");
                    let body = take(&mut rest, field.json_name())?;
                    Some(if is_raw { json!({}) } else { body })
                }
            };
            let query: Vec<String> = rest.as_object().into_iter().flatten().flat_map(pairs).collect();
            if !query.is_empty() {
                path = format!("{path}?{}", query.join("&"));
            }
            (method, path, body)
        }
    };
    let response = client.send(method, &path, &Uuid::now_v7().to_string(), body).await?;
    let code = Code::from(response.body["code"].as_i64().unwrap_or_default() as i32);
    if status_of(code) != response.status.as_u16() {
        bail!("the status and the code differ: {response:?}");
    }
    Ok(Outcome { code, reason: response.reason().to_owned(), text: response.body.to_string() })
}

/// `skus=a` and `skus=b`: values in these requests need no escapes.
fn pairs((name, value): (&String, &Value)) -> Vec<String> {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    match value {
        Value::Array(values) => values.iter().map(|value| format!("{name}={}", text(value))).collect(),
        value => vec![format!("{name}={}", text(value))],
    }
}

/// The path, with the fields that it names taken out of the request.
fn fill(template: &str, rpc: &MethodDescriptor, request: &mut Value) -> Result<String> {
    let (mut path, mut rest) = (String::new(), template);
    while let Some((literal, variable)) = rest.split_once('{') {
        let (variable, after) = variable.split_once('}').context("a closed brace")?;
        let (mut message, mut object) = (rpc.input(), &mut *request);
        let mut names = variable.split('.').peekable();
        while let Some(name) = names.next() {
            let field = message.get_field_by_name(name).with_context(|| format!("{name} of {template}"))?;
            if names.peek().is_none() {
                let value = take(object, field.json_name())?;
                path.push_str(literal);
                path.push_str(value.as_str().context("a text in the path")?);
            } else if let Kind::Message(inner) = field.kind() {
                (message, object) = (inner, &mut object[field.json_name()]);
            }
        }
        rest = after;
    }
    Ok(path + rest)
}

fn take(object: &mut Value, name: &str) -> Result<Value> {
    object.as_object_mut().and_then(|fields| fields.remove(name)).with_context(|| format!("{name} in the request"))
}

/// Over gRPC, at the edge or at a role.
pub(super) async fn grpc(channel: &Channel, token: &str, rpc: &MethodDescriptor, request: &Value) -> Result<Outcome> {
    let message = DynamicMessage::deserialize(rpc.input(), request).context("a request of the contract")?;
    let mut request = Request::new(message.encode_to_vec());
    request.metadata_mut().insert("idempotency-key", Uuid::now_v7().to_string().parse()?);
    if !token.is_empty() {
        request.metadata_mut().insert("authorization", format!("Bearer {token}").parse()?);
    }
    let path = format!("/{}/{}", rpc.parent_service().full_name(), rpc.name()).parse()?;
    let mut client = tonic::client::Grpc::new(channel.clone());
    client.ready().await?;
    let response = match rpc.is_server_streaming() {
        false => client.unary(request, path, Raw).await.map(Response::into_inner),
        // The first message is enough.
        true => match client.server_streaming(request, path, Raw).await {
            Ok(stream) => stream.into_inner().message().await.map(Option::unwrap_or_default),
            Err(status) => Err(status),
        },
    };
    let status = match response {
        Ok(response) => {
            let response = DynamicMessage::decode(rpc.output(), response.as_slice())?;
            let text = serde_json::to_string(&response)?;
            return Ok(Outcome { code: Code::Ok, reason: String::new(), text });
        }
        Err(status) => status,
    };
    let reason = status.get_details_error_info().map(|info| info.reason).unwrap_or_default();
    Ok(Outcome { code: status.code(), reason, text: status.message().to_owned() })
}
