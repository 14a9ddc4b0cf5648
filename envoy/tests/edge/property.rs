//! Property test: random bodies arrive at the service as they were written, and a damaged body arrives as written or not
//! at all. The expected message is parsed by prost-reflect, independently of Envoy.

use std::fmt;

use prost_reflect::{DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, ReflectMessage, Value};
use reqwest::Method;
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Value as Json, json};
use tonic::Code;

use crate::harness::{Edge, RestResponse, make_key, publish, sign};
use crate::upstream::Recorder;

const ID: &str = "01a22080-31bf-734b-ab66-d08b4f7932bf";
const ROUNDS: usize = 8;

/// Pseudo-random numbers, the same in each run.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % end
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}

/// An RPC whose request, or one field of it, is a JSON body.
struct Rpc {
    method: Method,
    path: String,
    request: MessageDescriptor,
    /// Empty for the whole request.
    body: String,
    /// Of the path and a field of the body, such as `product.product_id`; empty if there is none.
    variable: String,
}

fn read_rpcs() -> Vec<Rpc> {
    let pool = DescriptorPool::decode(contracts::DESCRIPTORS).expect("the contracts decode");
    let extension = pool.get_extension_by_name("google.api.http").expect("it is imported");
    let methods = pool.services().flat_map(|service| service.methods().collect::<Vec<_>>());
    let rpcs = methods.filter_map(|method| {
        let options = method.options();
        let http = options.get_extension(&extension);
        let http = http.as_message()?;
        let text = |name: &str| http.get_field_by_name(name).and_then(|it| it.as_str().map(str::to_owned));
        let body = text("body").filter(|body| !body.is_empty() && body != "body")?;
        let verb = ["post", "patch", "put"].into_iter().find(|verb| http.has_field_by_name(verb))?;
        let template = text(verb)?;
        let variable = template.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map(|it| it.0.to_owned());
        let path = variable.as_ref().map_or(template.clone(), |it| template.replace(&format!("{{{it}}}"), ID));
        let body = body.trim_matches('*').to_owned();
        let is_of_body = |it: &String| body.is_empty() || it.split_once('.').is_some_and(|(field, _)| field == body);
        Some(Rpc {
            method: verb.to_uppercase().parse().expect("a method"),
            path,
            request: method.input(),
            variable: variable.filter(is_of_body).unwrap_or_default(),
            body,
        })
    });
    rpcs.collect()
}

impl Rpc {
    fn message(&self) -> MessageDescriptor {
        let field = self.request.get_field_by_name(&self.body).map(|field| field.kind());
        field.as_ref().and_then(Kind::as_message).cloned().unwrap_or(self.request.clone())
    }

    /// The field of the body whose value is in the path.
    fn bound(&self) -> &str {
        self.variable.rsplit('.').next().unwrap_or_default()
    }

    async fn send(&self, edge: &Edge, token: &str, query: &str, body: &[u8]) -> RestResponse {
        let bearer = format!("Bearer {token}");
        let path = format!("{}{query}", self.path);
        edge.call(self.method.clone(), &path, &[("authorization", &bearer)], Some(body.to_vec().into())).await
    }

    /// The message of a valid body; `None` for one that must be refused.
    fn read(&self, body: &[u8]) -> Option<Json> {
        let body = if body.is_empty() { b"{}" } else { body };
        let tree: Tree = serde_json::from_slice(body).ok()?;
        let message = self.message();
        if !tree.is_strict(&message) {
            return None;
        }
        let mut json = serde_json::Deserializer::from_slice(body);
        let mut read = DynamicMessage::deserialize(message, &mut json).ok()?;
        if !self.variable.is_empty() {
            let bound = read.get_field_by_name(self.bound())?.as_str()?.to_owned();
            if tree.has(&self.message(), self.bound()) && bound != ID {
                return None;
            }
            read.set_field_by_name(self.bound(), Value::String(ID.to_owned()));
        }
        Some(show(&read))
    }

    fn arrived(&self, recorder: &Recorder) -> Option<Json> {
        let arrived = recorder.take()?;
        let arrived = DynamicMessage::decode(self.request.clone(), arrived.get(5..)?).expect("Envoy sends messages");
        match self.body.as_str() {
            "" => Some(show(&arrived)),
            field => Some(show(arrived.get_field_by_name(field)?.as_message()?)),
        }
    }
}

/// A message in canonical JSON, without default values.
fn show(message: &DynamicMessage) -> Json {
    serde_json::to_value(message.transcode_to_dynamic()).expect("messages can be JSON")
}

/// JSON, with duplicate members, which serde would drop.
enum Tree {
    Null,
    Scalar,
    List(Vec<Tree>),
    Object(Vec<(String, Tree)>),
}

impl Tree {
    /// Whether no field occurs twice and no list has a null.
    fn is_strict(&self, message: &MessageDescriptor) -> bool {
        let Tree::Object(members) = self else { return !matches!(self, Tree::Null) };
        let mut seen = Vec::new();
        members.iter().all(|(name, value)| {
            let Some(field) = find(message, name) else { return false };
            let is_first = !seen.contains(&field.number());
            seen.push(field.number());
            let inner = |tree: &Tree| field.kind().as_message().is_none_or(|message| tree.is_strict(message));
            is_first
                && match value {
                    Tree::List(items) => items.iter().all(|it| !matches!(it, Tree::Null) && inner(it)),
                    Tree::Null | Tree::Scalar => true,
                    object => inner(object),
                }
        })
    }

    fn has(&self, message: &MessageDescriptor, bound: &str) -> bool {
        let Tree::Object(members) = self else { return false };
        let is_bound = |name: &str| find(message, name).is_some_and(|field| field.name() == bound);
        members.iter().any(|(name, value)| is_bound(name) && !matches!(value, Tree::Null))
    }
}

fn find(message: &MessageDescriptor, name: &str) -> Option<FieldDescriptor> {
    message.fields().find(|field| field.name() == name || field.json_name() == name)
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl<'de> Visitor<'de> for Read {
            type Value = Tree;

            fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
                formatter.write_str("JSON")
            }

            fn visit_unit<E>(self) -> Result<Tree, E> {
                Ok(Tree::Null)
            }

            fn visit_bool<E>(self, _: bool) -> Result<Tree, E> {
                Ok(Tree::Scalar)
            }

            fn visit_i64<E>(self, _: i64) -> Result<Tree, E> {
                Ok(Tree::Scalar)
            }

            fn visit_u64<E>(self, _: u64) -> Result<Tree, E> {
                Ok(Tree::Scalar)
            }

            fn visit_f64<E>(self, _: f64) -> Result<Tree, E> {
                Ok(Tree::Scalar)
            }

            fn visit_str<E>(self, _: &str) -> Result<Tree, E> {
                Ok(Tree::Scalar)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Tree, A::Error> {
                let mut list = Vec::new();
                while let Some(item) = items.next_element()? {
                    list.push(item);
                }
                Ok(Tree::List(list))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Tree, A::Error> {
                let mut object = Vec::new();
                while let Some(member) = members.next_entry()? {
                    object.push(member);
                }
                Ok(Tree::Object(object))
            }
        }
        deserializer.deserialize_any(Read)
    }
}

/// Random JSON of a message.
fn write_message(random: &mut Random, message: &MessageDescriptor, without: &str) -> String {
    let fields: Vec<_> = message.fields().filter(|field| field.name() != without && random.below(4) > 0).collect();
    let members = fields.iter().map(|field| {
        let name = *random.pick(&[field.name(), field.json_name()]);
        let (first, rest) = name.split_at(1);
        let first = if random.below(4) == 0 { format!("\\u{:04x}", first.as_bytes()[0]) } else { first.to_owned() };
        let value = match (random.below(10), field.is_list()) {
            (0, _) => "null".to_owned(),
            (_, false) => write_value(random, &field.kind()),
            (_, true) => {
                let items: Vec<_> = (0..random.below(4)).map(|_| write_value(random, &field.kind())).collect();
                format!("[{}]", items.join(*random.pick(&[",", " ,\n"])))
            }
        };
        let gap = random.pick(&["", " ", "\n\t", "\r\n"]);
        format!("{gap}\"{first}{rest}\"{gap}:{gap}{value}{gap}")
    });
    let members: Vec<_> = members.collect();
    format!("{{{}}}", members.join(","))
}

fn write_value(random: &mut Random, kind: &Kind) -> String {
    match kind {
        Kind::Bool => (*random.pick(&["true", "false"])).to_owned(),
        Kind::Int32 => (*random.pick(&["0", "-7", "\"12\"", "2147483647", "-2147483648", "1e2"])).to_owned(),
        Kind::Int64 => (*random.pick(&["0", "\"-7\"", "9223372036854775807", "\"-9223372036854775808\""])).to_owned(),
        Kind::String => {
            let text =
                random.pick(&["", "pm_card_visa", "\u{e9}\u{20ac}\u{1f600}", "\\u00e9\\ud83d\\ude00", "\\n\\\"\\/"]);
            format!("\"{text}\"")
        }
        Kind::Enum(it) => {
            let values: Vec<_> = it.values().collect();
            let value = random.pick(&values);
            if random.below(2) == 0 { value.number().to_string() } else { format!("\"{}\"", value.name()) }
        }
        Kind::Message(it) if it.full_name() == "google.protobuf.Timestamp" => "\"2026-01-02T03:04:05.678Z\"".to_owned(),
        Kind::Message(it) if it.full_name() == "google.protobuf.FieldMask" => "\"displayName\"".to_owned(),
        Kind::Message(it) => write_message(random, it, ""),
        other => panic!("no request had a field of {other:?} so far: add here how to write it"),
    }
}

/// Changes, removes, inserts or duplicates some bytes.
fn damage(random: &mut Random, body: &str) -> Vec<u8> {
    let mut bytes = body.as_bytes().to_vec();
    for _ in 0..=random.below(2) {
        let at = random.below(bytes.len());
        match random.below(5) {
            0 => bytes[at] = *random.pick(b"\"\\{}[],:'01.eu \0\xff"),
            1 => drop(bytes.remove(at)),
            2 => bytes.insert(at, *random.pick(b"\"\\{}[],:'01.-+ntf \xe9")),
            3 => bytes.truncate(at.max(1)),
            _ => {
                let end = at + random.below(bytes.len() - at + 1);
                let again = bytes[at..end].to_vec();
                bytes.splice(at..at, again);
            }
        }
    }
    bytes
}

#[tokio::test]
async fn a_body_arrives_as_written_or_not_at_all() {
    let key = make_key();
    let recorder = Recorder::start(publish(&key)).await;
    let role_endpoints = |role: roster::Role| format!("--edge-{}-endpoints={}", role.name, recorder.address);
    let mut settings: Vec<_> = roster::services().map(role_endpoints).collect();
    let limits = ["write-burst", "customer-write-burst", "account-count"];
    settings.extend(limits.map(|limit| format!("--souk-limit-{limit}=1000000")));
    let edge = Edge::start(&settings.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let (token, mut random) = (sign(&key, json!({})), Random(7));
    let rpcs = read_rpcs();
    assert!(rpcs.len() >= 10, "the contracts have more: {}", rpcs.len());
    let (mut arrived, mut refused) = (0, 0);
    for round in 0..ROUNDS * rpcs.len() {
        let rpc = &rpcs[round % rpcs.len()];
        let body = write_message(&mut random, &rpc.message(), rpc.bound());
        let meant = rpc.read(body.as_bytes()).unwrap_or_else(|| panic!("{}: {body} is good", rpc.path));
        let response = rpc.send(&edge, &token, "", body.as_bytes()).await;
        assert_eq!(rpc.arrived(&recorder), Some(meant), "{}: {body}: {response:?}", rpc.path);

        // A field that the contract does not have, at the end of some object.
        let ends: Vec<_> = body.match_indices('}').map(|(at, _)| at).collect();
        let end = *random.pick(&ends);
        let comma = if body[..end].trim_end().ends_with('{') { "" } else { "," };
        let odd = format!("{}{comma}\"unknownField\":1{}", &body[..end], &body[end..]);
        let response = rpc.send(&edge, &token, "", odd.as_bytes()).await;
        response.assert_refused(400, Code::InvalidArgument, "REQUEST_INVALID");
        assert!(response.body.contains("unknownField\""), "{odd}: {response:?}");
        // The same fields a second time, and an unknown parameter.
        let inner = &body[1..body.len() - 1];
        if !inner.is_empty() {
            let twice = format!("{{{inner},{inner}}}");
            let response = rpc.send(&edge, &token, "", twice.as_bytes()).await;
            response.assert_refused(400, Code::InvalidArgument, "REQUEST_INVALID");
        }
        let response = rpc.send(&edge, &token, "?unknownField=1", body.as_bytes()).await;
        response.assert_invalid("unknownField");
        assert_eq!(recorder.take(), None, "{}: {body}", rpc.path);

        for _ in 0..10 {
            let damaged = damage(&mut random, &body);
            let response = rpc.send(&edge, &token, "", &damaged).await;
            let shown = String::from_utf8_lossy(&damaged);
            match rpc.arrived(&recorder) {
                Some(message) => {
                    arrived += 1;
                    let read = rpc.read(&damaged);
                    // The transcoder accepts more times than prost-reflect, such as 2026-1-2 and those of the year 226.
                    let has_time = shown.contains("Time\"") || shown.contains("_time\"");
                    if read.is_some() || !has_time {
                        assert_eq!(Some(message), read, "{}: {shown}", rpc.path);
                    }
                }
                None => {
                    refused += 1;
                    response.assert_refused(400, Code::InvalidArgument, "REQUEST_INVALID");
                }
            }
        }
    }
    assert!(arrived > 20 && refused > 20, "both happen: {arrived} arrived, {refused} were refused");
}
