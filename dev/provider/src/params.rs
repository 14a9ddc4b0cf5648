//! Form parameters, taken by name. A parameter that was not taken is unknown, and refused.

use axum::extract::{Form, FromRequest};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, Request};

use crate::error::Error;
use crate::metadata::Metadata;

/// Stripe's maximum: eight digits.
const LARGEST_AMOUNT: u64 = 99_999_999;
/// Stripe's limits on metadata.
const METADATA_PAIRS: usize = 50;
const METADATA_NAME: usize = 40;
const METADATA_VALUE: usize = 500;

#[derive(Clone)]
pub(crate) struct Params(Vec<(String, String)>);

impl Params {
    /// Reads the body of a POST, or the query of a GET.
    pub(crate) async fn read(mut request: Request<axum::body::Body>) -> Result<Params, Error> {
        // A POST without parameters has neither a body nor a content type.
        let form = HeaderValue::from_static("application/x-www-form-urlencoded");
        request.headers_mut().entry(CONTENT_TYPE).or_insert(form);
        match Form::<Vec<(String, String)>>::from_request(request, &()).await {
            Ok(Form(pairs)) => Ok(Params(pairs)),
            Err(rejection) => Err(Error::Malformed { status: rejection.status(), why: rejection.body_text() }),
        }
    }

    pub(crate) fn pairs(&self) -> &[(String, String)] {
        &self.0
    }

    /// Empty is the same as absent.
    pub(crate) fn take(&mut self, name: &str) -> Option<String> {
        let at = self.0.iter().position(|(found, _)| found == name)?;
        Some(self.0.remove(at).1).filter(|value| !value.is_empty())
    }

    pub(crate) fn take_text(&mut self, param: &'static str, longest: usize) -> Result<Option<String>, Error> {
        match self.take(param) {
            Some(text) if text.len() > longest => {
                Err(Error::ParameterInvalid { param, why: format!("Invalid string: longer than {longest} bytes.") })
            }
            text => Ok(text),
        }
    }

    pub(crate) fn take_amount(&mut self, param: &'static str) -> Result<Option<u64>, Error> {
        let Some(text) = self.take(param) else { return Ok(None) };
        match text.parse::<u64>() {
            Ok(0) => Err(Error::AmountTooSmall { param, least: 1 }),
            Ok(amount) if amount <= LARGEST_AMOUNT => Ok(Some(amount)),
            Ok(_) => Err(Error::AmountTooLarge(param)),
            Err(_) => Err(Error::ParameterInvalid { param, why: format!("Invalid integer: {text}") }),
        }
    }

    /// An integer from `least` to `most`.
    pub(crate) fn take_count(&mut self, param: &'static str, least: u64, most: u64) -> Result<Option<u64>, Error> {
        let Some(text) = self.take(param) else { return Ok(None) };
        match text.parse::<u64>() {
            Ok(count) if (least..=most).contains(&count) => Ok(Some(count)),
            _ => Err(Error::ParameterInvalid {
                param,
                why: format!("Must be an integer from {least} to {most}: {text}"),
            }),
        }
    }

    pub(crate) fn take_flag(&mut self, param: &'static str) -> Result<bool, Error> {
        Ok(self.take_one_of(param, &["true", "false"])?.as_deref() == Some("true"))
    }

    pub(crate) fn take_one_of(&mut self, param: &'static str, allowed: &[&str]) -> Result<Option<String>, Error> {
        match self.take(param) {
            Some(value) if !allowed.contains(&value.as_str()) => {
                let why = format!("Invalid {param}: must be one of {}", allowed.join(", "));
                Err(Error::ParameterInvalid { param, why })
            }
            value => Ok(value),
        }
    }

    pub(crate) fn take_metadata(&mut self) -> Result<Metadata, Error> {
        let mut pairs = Vec::new();
        for (name, value) in &self.0 {
            if let Some(name) = metadata_name(name) {
                pairs.push((name.to_owned(), value.clone()));
            }
        }
        self.0.retain(|(name, _)| metadata_name(name).is_none());
        let too_long = |(name, value): &(String, String)| name.len() > METADATA_NAME || value.len() > METADATA_VALUE;
        if pairs.len() > METADATA_PAIRS || pairs.iter().any(too_long) {
            let why = format!("At most {METADATA_PAIRS} pairs of {METADATA_NAME} and {METADATA_VALUE} bytes are kept.");
            return Err(Error::ParameterInvalid { param: "metadata", why });
        }
        Ok(Metadata(pairs))
    }

    pub(crate) fn end(self) -> Result<(), Error> {
        match self.0.into_iter().next() {
            Some((name, _)) => Err(Error::ParameterUnknown(name)),
            None => Ok(()),
        }
    }
}

fn metadata_name(param: &str) -> Option<&str> {
    param.strip_prefix("metadata[")?.strip_suffix(']')
}
