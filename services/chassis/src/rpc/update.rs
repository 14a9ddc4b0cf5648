//! Field masks and etags of updates.

use prost_types::FieldMask;

use crate::rpc::error::Error;

/// The fields to change (AIP-134). A path that is unknown or immutable is refused.
#[derive(Debug, Clone)]
pub enum Mask {
    /// No mask: the fields that are present.
    Present,
    /// `*`: all fields; an absent field becomes empty.
    All,
    Named(Vec<String>),
}

impl Mask {
    pub fn parse(mask: Option<FieldMask>, mutable: &[&str]) -> Result<Self, Error> {
        let Some(mask) = mask.filter(|mask| !mask.paths.is_empty()) else { return Ok(Self::Present) };
        if mask.paths == ["*"] {
            return Ok(Self::All);
        }
        match mask.paths.iter().find(|path| !mutable.contains(&path.as_str())) {
            Some(path) => Err(Error::MaskInvalid(path.clone())),
            None => Ok(Self::Named(mask.paths)),
        }
    }

    /// The value to set, if this field changes. `present` is the field's value if it is not the default.
    pub fn pick<T: Default>(&self, path: &str, present: Option<T>) -> Option<T> {
        match self {
            Self::Present => present,
            Self::All => Some(present.unwrap_or_default()),
            Self::Named(paths) => paths.iter().any(|it| it == path).then(|| present.unwrap_or_default()),
        }
    }

    /// Refuses a different value of an immutable field (AIP-203). Empty counts as absent, and fields that the mask does not name
    /// are ignored.
    pub fn keep(&self, field: &str, given: &str, current: &str) -> Result<(), Error> {
        match self {
            Self::Present | Self::All if !given.is_empty() && given != current => {
                Err(Error::field(field, "cannot be changed"))
            }
            Self::Present | Self::All | Self::Named(_) => Ok(()),
        }
    }
}

/// The etag of a version.
pub fn etag(version: i64) -> String {
    format!("v{version}")
}

/// Without an etag, any version may be changed.
pub fn check_etag(given: &str, version: i64) -> Result<(), Error> {
    if given.is_empty() || given == etag(version) { Ok(()) } else { Err(Error::EtagMismatch) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_decides_what_changes() {
        let parse = |paths: &[&str]| {
            let paths = paths.iter().map(|path| (*path).to_owned()).collect();
            Mask::parse(Some(FieldMask { paths }), &["title", "price"])
        };
        let all = Mask::parse(None, &["title"]).expect("no mask");
        assert_eq!(all.pick("title", Some("x")), Some("x"));
        assert_eq!(all.pick::<&str>("title", None), None);
        let title = parse(&["title"]).expect("mutable");
        assert_eq!(title.pick::<&str>("title", None), Some(""));
        assert_eq!(title.pick("price", Some(1)), None);
        assert!(matches!(parse(&["sku"]), Err(Error::MaskInvalid(path)) if path == "sku"));
        let whole = parse(&["*"]).expect("everything");
        assert_eq!(whole.pick("title", Some("x")), Some("x"));
        assert_eq!(whole.pick::<&str>("title", None), Some(""));
        assert!(matches!(parse(&["*", "title"]), Err(Error::MaskInvalid(path)) if path == "*"));
    }

    #[test]
    fn a_different_value_of_an_immutable_field_is_refused() {
        let named = Mask::Named(vec!["title".to_owned()]);
        for mask in [Mask::Present, Mask::All] {
            assert!(mask.keep("product.sku", "A", "A").is_ok() && mask.keep("product.sku", "", "A").is_ok());
            let refused = mask.keep("product.sku", "B", "A");
            assert!(matches!(refused, Err(Error::FieldsInvalid(fields)) if fields[0].0 == "product.sku"));
        }
        assert!(named.keep("product.sku", "B", "A").is_ok());
    }

    #[test]
    fn an_etag_that_is_given_must_be_the_current_one() {
        assert!(check_etag("", 3).is_ok());
        assert!(check_etag("v3", 3).is_ok());
        assert!(matches!(check_etag("v2", 3), Err(Error::EtagMismatch)));
    }
}
