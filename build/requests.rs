//! What may be in a request: a table of its lists and texts that `proto/scan.rs` walks before the request is decoded. A
//! request with a list or a text that has no bound does not build, and neither does one that may hold too many values:
//! so the work of checking any request is bounded.

use std::fmt::Write as _;

use prost_protovalidate_types::{FieldConstraintsExt, FieldRules, Ignore, StringRules, field_rules, string_rules};
use prost_reflect::{DescriptorPool, ExtensionDescriptor, FieldDescriptor, Kind, MessageDescriptor};
use regex_syntax::hir::Look;

/// How many values one request may have at most.
const MOST_VALUES: u64 = 2_000;
/// Messages of Google's carry no rules of ours: this is the longest of their lists.
const MOST_FOREIGN_ITEMS: u64 = 100;

pub(crate) struct Requests {
    text: ExtensionDescriptor,
}

/// The code of one request: its table, and the statements that write its ids in lower case.
pub(crate) struct Shape {
    pub(crate) table: String,
    pub(crate) normalize: String,
    values: u64,
}

impl Requests {
    pub(crate) fn new(pool: &DescriptorPool) -> Result<Self, String> {
        let text = pool.get_extension_by_name("souk.policy.v1.text").ok_or("souk.policy.v1.text is not defined")?;
        Ok(Self { text })
    }

    pub(crate) fn shape(&self, request: &MessageDescriptor) -> Result<Shape, String> {
        let shape = self.message(request, "self", &mut Vec::new())?;
        if shape.values > MOST_VALUES {
            let (name, values) = (request.full_name(), shape.values);
            return Err(format!("{name} may have {values} values; {MOST_VALUES} are the most that are checked"));
        }
        Ok(shape)
    }

    /// `place` is the Rust expression of the message, `above` the messages that it is in.
    fn message(&self, message: &MessageDescriptor, place: &str, above: &mut Vec<String>) -> Result<Shape, String> {
        if above.iter().any(|name| name == message.full_name()) {
            return Err(format!("{} contains itself: a request has a bound", message.full_name()));
        }
        above.push(message.full_name().to_owned());
        let mut whole = Shape { table: String::new(), normalize: String::new(), values: 0 };
        for field in message.fields() {
            let part = self.field(&field, place, above).map_err(|error| format!("{}: {error}", field.full_name()))?;
            whole.table.push_str(&part.table);
            whole.normalize.push_str(&part.normalize);
            whole.values += part.values;
        }
        above.pop();
        Ok(whole)
    }

    fn field(&self, field: &FieldDescriptor, place: &str, above: &mut Vec<String>) -> Result<Shape, String> {
        let rules = field.field_constraints().map_err(|error| error.to_string())?.unwrap_or_default();
        if rules.ignore() == Ignore::Always {
            return Err("the rules of a request are not ignored".to_owned());
        }
        let foreign = !field.parent_message().full_name().starts_with("souk.");
        if field.is_map() {
            return Err("maps in requests are not bounded yet: proto/scan.rs would have to count them".to_owned());
        }
        let (most, rules) = match (field.is_list(), foreign) {
            (false, _) => (None, rules),
            (true, true) => (Some(MOST_FOREIGN_ITEMS), FieldRules::default()),
            (true, false) => {
                let Some(field_rules::Type::Repeated(rules)) = rules.r#type else {
                    return Err("a list in a request has max_items".to_owned());
                };
                let most = rules.max_items.ok_or("a list in a request has max_items")?;
                (Some(most), rules.items.map(|items| *items).unwrap_or_default())
            }
        };
        let name = field.name();
        let (holds, inner) = match field.kind() {
            Kind::Message(message) => {
                let inner = self.message(&message, "it", above)?;
                (format!("Holds::Message(&[{}])", inner.table), inner)
            }
            kind => {
                let holds = match (kind, foreign) {
                    (Kind::String, true) => Some(holds_text("Opaque", None)),
                    (Kind::String, false) => self.text(field, &rules)?,
                    (Kind::Bytes, false) if !is_bounded_bytes(&rules) => {
                        return Err("bytes in a request have max_len".to_owned());
                    }
                    (Kind::Bytes, _) => None,
                    (
                        Kind::Float | Kind::Double | Kind::Fixed32 | Kind::Fixed64 | Kind::Sfixed32 | Kind::Sfixed64,
                        _,
                    ) if most.is_some() => {
                        return Err(
                            "lists of numbers with a fixed width are not counted by proto/scan.rs yet".to_owned()
                        );
                    }
                    _ => most.map(|_| "Holds::Numbers".to_owned()),
                };
                let normalize = if is_id(&rules) { "it.make_ascii_lowercase();" } else { "" };
                let inner = Shape { table: String::new(), normalize: normalize.to_owned(), values: 1 };
                // A list is counted whatever it holds.
                let holds = holds.or_else(|| most.map(|_| holds_text("Opaque", None)));
                (holds.unwrap_or_default(), inner)
            }
        };
        let mut table = String::new();
        let is_empty = holds.is_empty() || (most.is_none() && holds.ends_with("(&[])"));
        if !is_empty {
            write!(table, "Field {{ number: {}, name: {name:?}, most: {most:?}, holds: {holds} }},", field.number())
                .map_err(|error| error.to_string())?;
        }
        let normalize = match inner.normalize.as_str() {
            "" => String::new(),
            each if most.is_some() => format!("for it in &mut {place}.{name} {{ {each} }}"),
            each if field.supports_presence() => format!("if let Some(it) = &mut {place}.{name} {{ {each} }}"),
            each => format!("{{ let it = &mut {place}.{name}; {each} }}"),
        };
        Ok(Shape { table, normalize, values: most.unwrap_or(1) * inner.values.max(1) })
    }

    /// What `proto/scan.rs` looks for in a text; nothing where its rules say every character.
    fn text(&self, field: &FieldDescriptor, rules: &FieldRules) -> Result<Option<String>, String> {
        let none = StringRules::default();
        let rules = match &rules.r#type {
            Some(field_rules::Type::String(rules)) => rules,
            _ => &none,
        };
        let options = field.options();
        let declared = options.get_extension(&self.text).as_enum_number().unwrap_or_default();
        let spelled_out = rules.well_known.is_some() || rules.pattern.is_some() || !rules.r#in.is_empty();
        let text = match declared {
            0 if spelled_out => None,
            1 => Some("Opaque"),
            2 => Some("Line"),
            3 => Some("Lines"),
            4 => Some("Email"),
            5 => return Ok(Some(holds_text("Code", None))),
            _ => {
                return Err(
                    "a text in a request has a pattern, or says by (souk.policy.v1.text) what it holds".to_owned()
                );
            }
        };
        let pattern = rules.pattern.as_deref().map(is_bounded_pattern).transpose()?.unwrap_or_default();
        let bounded = pattern || is_id_rule(rules) || !rules.r#in.is_empty() || rules.r#const.is_some();
        let longest =
            rules.max_bytes.or(rules.len_bytes).or(rules.max_len.or(rules.len).map(|characters| 4 * characters));
        if longest.is_none() && !bounded {
            return Err("a text in a request has a longest length".to_owned());
        }
        Ok(text.map(|text| holds_text(text, longest)))
    }
}

/// `longest` is in bytes.
fn holds_text(text: &str, longest: Option<u64>) -> String {
    format!("Holds::Text {{ text: Text::{text}, longest: {longest:?} }}")
}

fn is_id(rules: &FieldRules) -> bool {
    matches!(&rules.r#type, Some(field_rules::Type::String(rules)) if is_id_rule(rules))
}

fn is_id_rule(rules: &StringRules) -> bool {
    matches!(rules.well_known, Some(string_rules::WellKnown::Uuid(true)))
}

fn is_bounded_bytes(rules: &FieldRules) -> bool {
    matches!(&rules.r#type, Some(field_rules::Type::Bytes(rules)) if rules.max_len.or(rules.len).is_some())
}

/// Whether it is about the whole text, and only so many characters match.
fn is_bounded_pattern(pattern: &str) -> Result<bool, String> {
    let parsed = regex_syntax::parse(pattern).map_err(|error| error.to_string())?;
    let properties = parsed.properties();
    let whole = properties.look_set_prefix().contains(Look::Start) && properties.look_set_suffix().contains(Look::End);
    Ok(whole && properties.maximum_len().is_some())
}
