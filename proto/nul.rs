//! PostgreSQL has no NUL in its texts, so no request may have one in any of its own. A rule on each field would say so
//! hundreds of times, and the next field would lack it.

use std::sync::LazyLock;

use prost::{DecodeError, Name};
use prost_reflect::{DescriptorPool, DynamicMessage, MapKey, Value};
use tonic_types::FieldViolation;

static POOL: LazyLock<DescriptorPool> =
    LazyLock::new(|| DescriptorPool::decode(crate::DESCRIPTORS).expect("build.rs wrote it"));

/// Names the texts with a NUL in an encoded message. Only one with a zero byte can have any, so few are looked at.
pub(crate) fn find<M: Name>(bytes: &[u8]) -> Result<Vec<FieldViolation>, DecodeError> {
    let mut found = Vec::new();
    if let Some(descriptor) = POOL.get_message_by_name(&M::full_name()) {
        look_into("", &Value::Message(DynamicMessage::decode(descriptor, bytes)?), &mut found);
    }
    Ok(found)
}

fn look_into(path: &str, value: &Value, found: &mut Vec<FieldViolation>) {
    match value {
        Value::String(text) if text.contains('\0') => found.push(FieldViolation::new(path, "must not contain NUL")),
        Value::Message(message) => {
            for (field, value) in message.fields() {
                let separator = if path.is_empty() { "" } else { "." };
                look_into(&format!("{path}{separator}{}", field.name()), value, found);
            }
        }
        Value::List(values) => {
            for (index, value) in values.iter().enumerate() {
                look_into(&format!("{path}[{index}]"), value, found);
            }
        }
        Value::Map(values) => {
            for (key, value) in values {
                if let MapKey::String(key) = key {
                    look_into(&format!("{path}.key"), &Value::String(key.clone()), found);
                }
                look_into(&format!("{path}[{key:?}]"), value, found);
            }
        }
        _ => {}
    }
}
