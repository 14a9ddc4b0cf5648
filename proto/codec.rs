//! Where every request is checked against the rules of its contract, once: the codec that decodes it.

use std::collections::HashMap;
use std::marker::PhantomData;

use bytes::Buf;
use prost::{Message, Name};
use prost_protovalidate::ValidationError;
use tonic::codec::{Codec, DecodeBuf, Decoder};
use tonic::{Code, Status};
use tonic_prost::{ProstCodec, ProstEncoder};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt};

use crate::scan::{Field, Found, MAX_VIOLATIONS, scan};

/// A refusal travels in headers, and those end at 16 KiB for many a client: none of its texts is longer than this, and
/// neither is the message.
const MAX_TEXT: usize = 120;
const MAX_MESSAGE: usize = 1_000;

/// What build.rs writes for the messages of every RPC.
pub(crate) trait Contract: Name {
    /// The domain of errors about it, such as `souk.order`.
    const DOMAIN: &'static str;
    /// What is looked at before a request is decoded. What comes back is our own and trusted.
    const FIELDS: &'static [Field] = &[];

    /// Writes what has several spellings in one of them.
    fn normalize(&mut self) {}

    fn check(&self) -> Result<(), ValidationError> {
        Ok(())
    }
}

/// Protobuf, and a message that breaks the rules does not come in: its violations go back together.
pub(crate) struct Validated<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for Validated<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> Codec for Validated<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Contract + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = ValidatedDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstCodec::<T, U>::default().encoder()
    }

    fn decoder(&mut self) -> Self::Decoder {
        ValidatedDecoder(PhantomData)
    }
}

pub(crate) struct ValidatedDecoder<U>(PhantomData<U>);

impl<U: Message + Default + Contract> Decoder for ValidatedDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        let Found { mut violations, hopeless } = scan(U::FIELDS, buffer.chunk());
        if hopeless {
            return Err(refuse::<U>(&violations));
        }
        let mut message = U::decode(buffer)
            .map_err(|error| refuse_because::<U>(&format!("the message does not decode: {error}"), &[]))?;
        message.normalize();
        if let Err(error) = message.check() {
            violations.extend(error.violations().iter().map(describe));
        }
        if violations.is_empty() { Ok(Some(message)) } else { Err(refuse::<U>(&violations)) }
    }
}

fn describe(violation: &prost_protovalidate::Violation) -> FieldViolation {
    let description = match violation.message() {
        // Format rules have an id and no text.
        "" => format!("does not satisfy {}", violation.rule_id()),
        text => text.to_owned(),
    };
    FieldViolation::new(violation.field_path(), description)
}

/// As many as the message has room for, and how many there are beside.
fn summarize(violations: &[FieldViolation]) -> String {
    let mut message = String::new();
    for (at, violation) in violations.iter().enumerate() {
        let text = format!("{}: {}; ", shorten(&violation.field, MAX_TEXT), shorten(&violation.description, MAX_TEXT));
        if message.len() + text.len() > MAX_MESSAGE {
            return format!("{message}and {} more", violations.len() - at);
        }
        message.push_str(&text);
    }
    message.trim_end_matches("; ").to_owned()
}

fn shorten(text: &str, max: usize) -> &str {
    &text[..text.floor_char_boundary(max)]
}

fn refuse<U: Contract>(violations: &[FieldViolation]) -> Status {
    refuse_because::<U>(&summarize(violations), violations)
}

fn refuse_because<U: Contract>(message: &str, violations: &[FieldViolation]) -> Status {
    let mut details = ErrorDetails::with_error_info("REQUEST_INVALID", U::DOMAIN, HashMap::new());
    for violation in violations.iter().take(MAX_VIOLATIONS) {
        let (field, description) = (shorten(&violation.field, MAX_TEXT), shorten(&violation.description, MAX_TEXT));
        details.add_bad_request_violation(field, description);
    }
    Status::with_error_details(Code::InvalidArgument, shorten(message, MAX_MESSAGE), details)
}
