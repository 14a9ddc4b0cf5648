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

/// Protobuf, and a message that breaks the rules does not come in: all its violations go back at once.
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
        let unreadable = |error| refuse::<U>(format!("the message does not decode: {error}"), vec![]);
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
        let fields: Vec<_> = violations.iter().map(|it| format!("{}: {}", it.field, it.description)).collect();
        Err(refuse::<U>(fields.join("; "), violations))
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

fn refuse<U: Contract>(message: String, violations: Vec<FieldViolation>) -> Status {
    let mut details = ErrorDetails::with_error_info("REQUEST_INVALID", U::DOMAIN, HashMap::new());
    if !violations.is_empty() {
        details.set_bad_request(violations);
    }
    Status::with_error_details(Code::InvalidArgument, message, details)
}
