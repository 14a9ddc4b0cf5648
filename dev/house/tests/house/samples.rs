//! Published events stay readable for ever. `proto/samples` has one event of each type, as a service published it, and its JSON.
//! For a new type, run the tests of its service, and this one, with `SOUK_RECORD_SAMPLES=1`.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use contracts::souk::inventory::v1::InventoryEvent;
use contracts::souk::order::v1::OrderEvent;
use contracts::souk::payment::v1::PaymentEvent;
use contracts::souk::user::v1::UserEvent;
use prost::{Message, Name};
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, SerializeOptions};

use super::{pool, root};

fn folder() -> PathBuf {
    root().join("proto/samples")
}

/// Each event type, and the message that contains it.
fn event_types(pool: &DescriptorPool) -> Vec<(String, MessageDescriptor)> {
    let files = pool.files().filter(|file| file.name().ends_with("_events.proto"));
    let envelopes = files.flat_map(|file| {
        file.messages().filter(|it| it.oneofs().any(|oneof| oneof.name() == "event")).collect::<Vec<_>>()
    });
    let types = envelopes.flat_map(|envelope| {
        let oneof = envelope.oneofs().find(|oneof| oneof.name() == "event").expect("it was just found");
        let fields: Vec<_> = oneof.fields().collect();
        fields.into_iter().map(move |field| {
            let event_type = field.kind().as_message().expect("an event is a message").full_name().to_owned();
            (event_type, envelope.clone())
        })
    });
    types.collect()
}

/// Decodes and encodes by the generated struct, so that fields that it lacks are missing afterwards.
fn through<M: Message + Default>(bytes: &[u8]) -> Vec<u8> {
    M::decode(bytes).expect("it decodes").encode_to_vec()
}

fn read(envelope: &MessageDescriptor, bytes: &[u8]) -> DynamicMessage {
    let name = envelope.full_name();
    let bytes = if name == OrderEvent::full_name() {
        through::<OrderEvent>(bytes)
    } else if name == InventoryEvent::full_name() {
        through::<InventoryEvent>(bytes)
    } else if name == PaymentEvent::full_name() {
        through::<PaymentEvent>(bytes)
    } else if name == UserEvent::full_name() {
        through::<UserEvent>(bytes)
    } else {
        panic!("add the struct of {name} here");
    };
    DynamicMessage::decode(envelope.clone(), &*bytes).expect("what was just encoded decodes")
}

/// Without unset fields, so that a field that is added later changes nothing.
fn render(message: &DynamicMessage) -> String {
    let mut text = Vec::new();
    message
        .serialize_with_options(&mut serde_json::Serializer::pretty(&mut text), &SerializeOptions::new())
        .expect("any event can be written as JSON");
    String::from_utf8(text).expect("JSON is text") + "\n"
}

#[test]
fn every_published_event_still_reads_the_same() {
    let pool = pool();
    let types = event_types(&pool);
    assert!(types.len() >= 21, "{types:?}");
    for (event_type, envelope) in &types {
        let file = folder().join(event_type);
        let sample = fs::read(PathBuf::from(format!("{}.binpb", file.display())));
        let message =
            read(envelope, &sample.unwrap_or_else(|_| panic!("{event_type} has no sample; see the top of this file")));
        let set = message.fields().filter_map(|(field, _)| Some(field.kind().as_message()?.full_name().to_owned()));
        assert!(set.collect::<Vec<_>>().contains(event_type), "the sample of {event_type} has another type");
        let (text, expected) = (render(&message), PathBuf::from(format!("{}.json", file.display())));
        if std::env::var_os("SOUK_RECORD_SAMPLES").is_some() && !expected.exists() {
            fs::write(&expected, &text).expect("the sample can be written");
        }
        assert_eq!(text, fs::read_to_string(&expected).unwrap_or_default(), "{event_type}");
    }
}

/// A type may not be removed, even if it is not published any more: topics have old events of it.
#[test]
fn every_sample_has_an_existing_type() {
    let types: BTreeSet<_> = event_types(&pool()).into_iter().map(|(event_type, _)| event_type).collect();
    for entry in fs::read_dir(folder()).expect("the samples are there") {
        let name = entry.expect("an entry").file_name().into_string().expect("a name in ASCII");
        let event_type = name.strip_suffix(".binpb").or(name.strip_suffix(".json")).unwrap_or(&name);
        assert!(types.contains(event_type), "the contracts have no {event_type} any more");
    }
}
