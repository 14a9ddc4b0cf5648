//! An event as a Kafka record: protobuf as the value, the aggregate's id as the key, everything else in the headers of
//! the CloudEvents binding.

use chassis::event::Record;
use rdkafka::Message;
use rdkafka::message::{Header, Headers, OwnedHeaders};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

/// Why a record is not an event of ours.
#[derive(Debug, thiserror::Error)]
#[error("the header {0} is missing or malformed")]
pub struct Unreadable(pub &'static str);

/// `source` is the service that wrote it, such as `order`.
pub(crate) fn headers(record: &Record, source: &str) -> OwnedHeaders {
    let (sequence, key) = (record.version.to_string(), record.key.to_string());
    let (event_id, source) = (record.event_id.to_string(), format!("/souk/{source}"));
    let time = record.occurred_at.format(&Rfc3339).unwrap_or_default();
    let causation = record.causation_id.map(|id| id.to_string());
    let fixed = [
        ("ce_specversion", "1.0"),
        ("ce_id", &event_id),
        ("ce_type", &record.event_type),
        ("ce_source", &source),
        ("ce_time", &time),
        ("ce_subject", &key),
        ("ce_sequence", &sequence),
        ("content-type", "application/protobuf"),
        ("ce_actor", &record.actor),
    ];
    let optional = [("ce_causationid", causation.as_deref()), ("traceparent", record.traceparent.as_deref())];
    let optional = optional.into_iter().filter_map(|(key, value)| Some((key, value?)));
    let empty = OwnedHeaders::new_with_capacity(11);
    fixed.into_iter().chain(optional).fold(empty, |all, (key, value)| all.insert(Header { key, value: Some(value) }))
}

/// Read before the rest, because the handler may not want this type.
pub(crate) fn event_type<M: Message>(message: &M) -> Option<&str> {
    header(message, "ce_type")
}

pub fn parse<M: Message>(message: &M) -> Result<Record, Unreadable> {
    let text = |name: &'static str| header(message, name).ok_or(Unreadable(name));
    let uuid = |name: &'static str, text: &str| Uuid::parse_str(text).map_err(|_| Unreadable(name));
    Ok(Record {
        topic: message.topic().to_owned(),
        partition: message.partition(),
        offset: message.offset(),
        key: uuid("ce_subject", text("ce_subject")?)?,
        version: text("ce_sequence")?.parse().map_err(|_| Unreadable("ce_sequence"))?,
        event_id: uuid("ce_id", text("ce_id")?)?,
        event_type: text("ce_type")?.to_owned(),
        payload: message.payload().unwrap_or_default().to_vec(),
        actor: text("ce_actor")?.to_owned(),
        causation_id: header(message, "ce_causationid").map(|id| uuid("ce_causationid", id)).transpose()?,
        occurred_at: OffsetDateTime::parse(text("ce_time")?, &Rfc3339).map_err(|_| Unreadable("ce_time"))?,
        traceparent: header(message, "traceparent").map(str::to_owned),
    })
}

fn header<'a, M: Message>(message: &'a M, name: &str) -> Option<&'a str> {
    let headers = message.headers()?;
    let found = headers.iter().find(|header| header.key == name)?;
    std::str::from_utf8(found.value?).ok()
}
