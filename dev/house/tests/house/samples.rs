//! What was published once is readable for ever. `proto/samples` has one event of each type, as a service published it, and
//! what it says. A type that is new gets its sample by running the tests of its service, and this one, under
//! `SOUK_RECORD_SAMPLES=1`.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use contracts::souk::inventory::v1::InventoryEvent;
use contracts::souk::order::v1::OrderEvent;
use contracts::souk::payment::v1::PaymentEvent;
use prost::{Message, Name};
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, SerializeOptions};

use super::{pool, root};

fn folder() -> PathBuf {
    root().join("proto/samples")
}

/// What can be said on a topic: each type, and the message that carries it.
fn event_types(pool: &DescriptorPool) -> Vec<(String, MessageDescriptor)> {
    let files = pool.files().filter(|file| file.name().ends_with("_events.proto"));
    let carriers = files.flat_map(|file| {
        file.messages().filter(|it| it.oneofs().any(|oneof| oneof.name() == "event")).collect::<Vec<_>>()
    });
    let types = carriers.flat_map(|carrier| {
        let says = carrier.oneofs().find(|oneof| oneof.name() == "event").expect("it was just seen");
        let fields: Vec<_> = says.fields().collect();
        fields.into_iter().map(move |field| {
            let says = field.kind().as_message().expect("an event is a message").full_name().to_owned();
            (says, carrier.clone())
        })
    });
    types.collect()
}

/// Through the struct that services use, so that what it would lose is missed.
fn through<M: Message + Default>(bytes: &[u8]) -> Vec<u8> {
    M::decode(bytes).expect("it decodes").encode_to_vec()
}

fn read(carrier: &MessageDescriptor, bytes: &[u8]) -> DynamicMessage {
    let name = carrier.full_name();
    let bytes = if name == OrderEvent::full_name() {
        through::<OrderEvent>(bytes)
    } else if name == InventoryEvent::full_name() {
        through::<InventoryEvent>(bytes)
    } else if name == PaymentEvent::full_name() {
        through::<PaymentEvent>(bytes)
    } else {
        panic!("say here which struct {name} is");
    };
    DynamicMessage::decode(carrier.clone(), &*bytes).expect("what was just encoded decodes")
}

/// Fields that were not set are left away, so that a field added later changes nothing.
fn render(message: &DynamicMessage) -> String {
    let mut text = Vec::new();
    message
        .serialize_with_options(&mut serde_json::Serializer::pretty(&mut text), &SerializeOptions::new())
        .expect("any event can be written as JSON");
    String::from_utf8(text).expect("JSON is text") + "\n"
}

#[test]
fn every_event_that_was_ever_published_still_says_what_it_said() {
    let pool = pool();
    let types = event_types(&pool);
    assert!(types.len() >= 21, "{types:?}");
    for (says, carrier) in &types {
        let file = folder().join(says);
        let sample = fs::read(PathBuf::from(format!("{}.binpb", file.display())));
        let message =
            read(carrier, &sample.unwrap_or_else(|_| panic!("{says} has no sample; see the top of this file")));
        let set = message.fields().filter_map(|(field, _)| Some(field.kind().as_message()?.full_name().to_owned()));
        assert!(set.collect::<Vec<_>>().contains(says), "the sample of {says} says something else");
        let (text, expected) = (render(&message), PathBuf::from(format!("{}.json", file.display())));
        if std::env::var_os("SOUK_RECORD_SAMPLES").is_some() && !expected.exists() {
            fs::write(&expected, &text).expect("the sample can be written");
        }
        assert_eq!(text, fs::read_to_string(&expected).unwrap_or_default(), "{says}");
    }
}

/// A type may fall out of use, but what was published of it stands in topics.
#[test]
fn every_sample_is_of_a_type_that_is_still_there() {
    let types: BTreeSet<_> = event_types(&pool()).into_iter().map(|(says, _)| says).collect();
    for entry in fs::read_dir(folder()).expect("the samples are there") {
        let name = entry.expect("an entry").file_name().into_string().expect("a name in ASCII");
        let says = name.strip_suffix(".binpb").or(name.strip_suffix(".json")).unwrap_or(&name);
        assert!(types.contains(says), "nothing can say {says} any more");
    }
}
