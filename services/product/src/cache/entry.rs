//! What is stored of a product: its version, so that scripts can compare it, then what it is.

use contracts::souk::product::v1::Product as Message;
use prost::Message as _;

use super::Found;
use crate::product::Product;

const PRODUCT: &[u8] = b" product ";
const ABSENT: &[u8] = b"0 absent";

pub(super) fn encode(found: Option<&Product>) -> Vec<u8> {
    let Some(product) = found else { return ABSENT.to_vec() };
    let version = product.version.to_string();
    [version.as_bytes(), PRODUCT, &product.clone().into_proto().encode_to_vec()].concat()
}

/// None: a change was marked, or nothing was stored that we can read.
pub(super) fn decode(entry: &[u8]) -> Option<Found<Message>> {
    if entry == ABSENT {
        return Some(None);
    }
    let digits = entry.iter().take_while(|it| it.is_ascii_digit()).count();
    let message = entry.get(digits..)?.strip_prefix(PRODUCT)?;
    Message::decode(message).ok().map(Some)
}

#[cfg(test)]
mod tests {
    use chassis::timestamp;
    use time::OffsetDateTime;
    use uuid::Uuid;

    use super::*;
    use crate::product::{ProductId, State};

    #[test]
    fn what_was_stored_is_read() {
        let now = OffsetDateTime::UNIX_EPOCH;
        let product = Product {
            product_id: ProductId::new(Uuid::nil()),
            sku: "MUG".into(),
            title: "Mug".into(),
            description: String::new(),
            currency: "EUR".into(),
            price_minor: 700,
            category_id: None,
            language: "en".into(),
            image_urls: vec!["https://example.com/a".into()],
            image_alts: vec!["A mug".into()],
            state: State::Active,
            version: 12,
            created_at: now,
            updated_at: now,
        };
        let entry = encode(Some(&product));
        assert!(entry.starts_with(b"12 product "), "scripts read the version");
        let message = decode(&entry).expect("readable").expect("there");
        assert_eq!((message.etag.as_str(), message.create_time), ("v12", Some(timestamp(now))));
        assert_eq!(message, product.into_proto());
        assert_eq!(decode(&encode(None)), Some(None));
        for odd in ["", "12 changed", "12", "nonsense", "12 product \u{7f}"] {
            assert_eq!(decode(odd.as_bytes()), None, "{odd}");
        }
    }
}
