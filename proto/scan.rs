//! Checks an encoded request before it is decoded: the lengths of its lists, and the characters of its texts. The scan ends
//! at the first list that is too long, so no request costs more than a valid one of its size.

use std::fmt;

use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use tonic_types::FieldViolation;

use crate::text::Text;

/// An error's details travel in headers, so it has at most this many violations, and the scan ends when it has found them.
pub(crate) const MAX_VIOLATIONS: usize = 10;

/// A list or a text of a request, or a message that contains some. Other fields are not in the table.
pub(crate) struct Field {
    pub(crate) number: u32,
    pub(crate) name: &'static str,
    /// The most items, of a list.
    pub(crate) max_items: Option<u64>,
    pub(crate) content: Content,
}

pub(crate) enum Content {
    /// A text of more than `max_bytes` is not scanned: it breaks a rule that is checked after decoding.
    Text {
        text: Text,
        max_bytes: Option<u64>,
    },
    Message(&'static [Field]),
    /// A list of numbers, packed or not.
    Numbers,
}

#[derive(Default)]
pub(crate) struct Scan {
    pub(crate) violations: Vec<FieldViolation>,
    /// The scan ended early, at a list that is too long or at the last violation of the error: the request is refused
    /// without being decoded.
    pub(crate) stopped: bool,
}

pub(crate) fn scan(fields: &'static [Field], bytes: &[u8]) -> Scan {
    let mut scan = Scan::default();
    if !fields.is_empty() {
        scan.message(fields, bytes, &mut fresh(fields), &Path::Root);
    }
    scan
}

/// How often a field occurred so far. Decoding merges several occurrences of a field that is not a list, so their lists
/// are counted together.
struct Count {
    seen: u64,
    inside: Vec<Count>,
}

fn fresh(fields: &[Field]) -> Vec<Count> {
    fields.iter().map(|_| Count { seen: 0, inside: vec![] }).collect()
}

enum Path<'a> {
    Root,
    Field { inside: &'a Path<'a>, name: &'static str, index: Option<u64> },
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Field { inside, name, index } = self else { return Ok(()) };
        if let Self::Field { .. } = inside {
            write!(f, "{inside}.")?;
        }
        match index {
            Some(index) => write!(f, "{name}[{index}]"),
            None => f.write_str(name),
        }
    }
}

impl Scan {
    /// Ends where the bytes do not parse: decoding them reports the error.
    fn message(&mut self, fields: &'static [Field], mut bytes: &[u8], counts: &mut [Count], path: &Path<'_>) {
        while !bytes.is_empty() && !self.stopped {
            let Ok((number, wire_type)) = decode_key(&mut bytes) else { return };
            let at = fields.iter().position(|field| field.number == number);
            let Some(at) = at.filter(|_| wire_type == WireType::LengthDelimited) else {
                if skip_field(wire_type, number, &mut bytes, DecodeContext::default()).is_err() {
                    return;
                }
                if let Some(at) = at.filter(|at| matches!(fields[*at].content, Content::Numbers)) {
                    self.count(&fields[at], 1, &mut counts[at], path);
                }
                continue;
            };
            let length = decode_varint(&mut bytes).ok().and_then(|length| usize::try_from(length).ok());
            let Some((value, rest)) = length.and_then(|length| bytes.split_at_checked(length)) else { return };
            bytes = rest;
            self.field(&fields[at], value, &mut counts[at], path);
        }
    }

    fn field(&mut self, field: &'static Field, value: &[u8], count: &mut Count, inside: &Path<'_>) {
        let index = field.max_items.map(|_| count.seen);
        let path = Path::Field { inside, name: field.name, index };
        let items = match field.content {
            // The last byte of each varint has no continuation bit.
            Content::Numbers => value.iter().filter(|byte| **byte < 0x80).count() as u64,
            Content::Text { .. } | Content::Message(_) => 1,
        };
        self.count(field, items, count, inside);
        if self.stopped {
            return;
        }
        match &field.content {
            Content::Numbers => {}
            Content::Text { max_bytes: Some(max_bytes), .. } if value.len() as u64 > *max_bytes => {}
            Content::Text { text, .. } => {
                if let Some(description) = text.refuse(value) {
                    self.violations.push(FieldViolation::new(path.to_string(), description));
                    self.stopped = self.violations.len() >= MAX_VIOLATIONS;
                }
            }
            Content::Message(fields) => {
                if field.max_items.is_some() || count.inside.is_empty() {
                    count.inside = fresh(fields);
                }
                self.message(fields, value, &mut count.inside, &path);
            }
        }
    }
}

impl Scan {
    fn count(&mut self, field: &Field, items: u64, count: &mut Count, inside: &Path<'_>) {
        count.seen += items;
        if let Some(max_items) = field.max_items.filter(|max_items| count.seen > *max_items) {
            let list = Path::Field { inside, name: field.name, index: None };
            self.violations
                .push(FieldViolation::new(list.to_string(), format!("must contain no more than {max_items} item(s)")));
            self.stopped = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use prost::encoding::encode_varint;

    use super::*;
    use crate::codec::Contract;
    use crate::souk::ops::v1::DiscardDeadLettersRequest;
    use crate::souk::order::v1::{CreateOrderRequest, OrderItem, ShippingAddress};
    use crate::souk::product::v1::{BatchGetProductsRequest, CreateProductRequest, Product};

    fn fields(found: &Scan) -> Vec<&str> {
        found.violations.iter().map(|violation| violation.field.as_str()).collect()
    }

    #[test]
    fn nothing_behind_the_first_item_too_many_is_looked_at() {
        let mut bytes = BatchGetProductsRequest { product_ids: vec![String::new(); 101] }.encode_to_vec();
        // These bytes do not decode: a scan that read on would report them instead of the list.
        bytes.extend([0xff; 64]);
        let found = scan(BatchGetProductsRequest::FIELDS, &bytes);
        assert_eq!((fields(&found), found.stopped), (vec!["product_ids"], true));
        let most = BatchGetProductsRequest { product_ids: vec![String::new(); 100] }.encode_to_vec();
        assert!(!scan(BatchGetProductsRequest::FIELDS, &most).stopped);
    }

    #[test]
    fn numbers_are_counted_packed_or_not() {
        let ids = |count: i64| DiscardDeadLettersRequest {
            dead_letter_ids: (0..count).map(|at| i64::MAX - at).collect(),
            ..Default::default()
        };
        let scan = |bytes: &[u8]| scan(DiscardDeadLettersRequest::FIELDS, bytes);
        assert!(!scan(&ids(100).encode_to_vec()).stopped);
        assert_eq!(fields(&scan(&ids(101).encode_to_vec())), ["dead_letter_ids"]);
        let one_by_one = |count| [3 << 3, 7].repeat(count);
        assert!(!scan(&one_by_one(100)).stopped);
        assert_eq!(fields(&scan(&one_by_one(101))), ["dead_letter_ids"]);
    }

    #[test]
    fn lists_of_a_message_that_is_there_several_times_are_counted_together() {
        let line = |line: &str| ShippingAddress { lines: vec![line.to_owned(); 3], ..Default::default() };
        let once = CreateOrderRequest { shipping_address: Some(line("a")), ..Default::default() }.encode_to_vec();
        assert!(!scan(CreateOrderRequest::FIELDS, &once).stopped);
        let twice = [once.clone(), once].concat();
        let merged = CreateOrderRequest::decode(&*twice).expect("it decodes").shipping_address.expect("an address");
        assert_eq!(merged.lines.len(), 6, "as decoding merges them");
        assert_eq!(fields(&scan(CreateOrderRequest::FIELDS, &twice)), ["shipping_address.lines"]);
    }

    #[test]
    fn texts_are_named_by_their_path_and_only_so_many() {
        let address = ShippingAddress { lines: vec!["a\0b".to_owned(), " ".to_owned()], ..Default::default() };
        let request = CreateOrderRequest { shipping_address: Some(address), ..Default::default() }.encode_to_vec();
        let found = scan(CreateOrderRequest::FIELDS, &request);
        assert_eq!(fields(&found), ["shipping_address.lines[0]", "shipping_address.lines[1]"]);
        assert!(!found.stopped);
        // A field that is not a list occurs 1,000 times; the violations are bounded all the same.
        let mut bytes = Vec::new();
        for _ in 0..1_000 {
            encode_varint(4 << 3 | 2, &mut bytes);
            encode_varint(3, &mut bytes);
            bytes.extend([1 << 3 | 2, 1, 0]);
        }
        let found = scan(CreateOrderRequest::FIELDS, &bytes);
        assert_eq!((found.violations.len(), found.stopped), (MAX_VIOLATIONS, true));
    }

    #[test]
    fn a_text_that_is_too_long_is_not_looked_at() {
        let fields = |title: &str| {
            let product = Some(Product { title: title.to_owned(), ..Default::default() });
            let request = CreateProductRequest { product, validate_only: false }.encode_to_vec();
            scan(CreateProductRequest::FIELDS, &request).violations.len()
        };
        assert_eq!(fields(&" ".repeat(4 * 200)), 1);
        assert_eq!(fields(&" ".repeat(4 * 200 + 1)), 0, "its length is a rule of its own");
    }

    #[test]
    fn what_is_no_message_is_left_to_decoding() {
        let items = vec![OrderItem { product_id: "x".repeat(36), quantity: 1 }];
        let whole = CreateOrderRequest { items, ..Default::default() }.encode_to_vec();
        for end in 0..whole.len() {
            assert!(scan(CreateOrderRequest::FIELDS, &whole[..end]).violations.is_empty(), "{end}");
        }
    }
}
