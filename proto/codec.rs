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

use crate::nul;

/// A refusal travels in headers, and those end at 16 KiB for many a client: so many violations are told, none of their
/// texts is longer than this, and neither is the message.
const MAX_VIOLATIONS: usize = 30;
const MAX_TEXT: usize = 120;
const MAX_MESSAGE: usize = 1_000;

/// What build.rs writes for the messages of every RPC.
pub(crate) trait Contract: Name {
    /// The domain of errors about it, such as `souk.order`.
    const DOMAIN: &'static str;
    /// Whether callers send it; what comes back is our own and trusted.
    const IS_REQUEST: bool;

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
        let suspect = (U::IS_REQUEST && buffer.chunk().contains(&0)).then(|| buffer.chunk().to_vec());
        let unreadable = |error| refuse::<U>(&format!("the message does not decode: {error}"), &[]);
        let message = U::decode(buffer).map_err(unreadable)?;
        let mut violations: Vec<_> = match message.check() {
            Ok(()) => Vec::new(),
            Err(error) => error.violations().iter().map(describe).collect(),
        };
        if let Some(bytes) = suspect {
            violations.append(&mut nul::find::<U>(&bytes).map_err(unreadable)?);
        }
        if violations.is_empty() {
            return Ok(Some(message));
        }
        Err(refuse::<U>(&summarize(&violations), &violations))
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

fn refuse<U: Contract>(message: &str, violations: &[FieldViolation]) -> Status {
    let mut details = ErrorDetails::with_error_info("REQUEST_INVALID", U::DOMAIN, HashMap::new());
    for violation in violations.iter().take(MAX_VIOLATIONS) {
        let (field, description) = (shorten(&violation.field, MAX_TEXT), shorten(&violation.description, MAX_TEXT));
        details.add_bad_request_violation(field, description);
    }
    Status::with_error_details(Code::InvalidArgument, shorten(message, MAX_MESSAGE), details)
}
