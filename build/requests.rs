//! Generates the table of a request's lists and texts that `proto/scan.rs` checks before the request is decoded. A request
//! with an unbounded list or text does not build, and neither does one that may contain too many values: so the work of
//! checking any request is bounded.

use std::fmt::Write as _;

use prost_protovalidate_types::{FieldConstraintsExt, FieldRules, Ignore, StringRules, field_rules, string_rules};
use prost_reflect::{DescriptorPool, ExtensionDescriptor, FieldDescriptor, Kind, MessageDescriptor};
use regex_syntax::hir::Look;

/// The most values that one request may contain.
const MAX_VALUES: u64 = 2_000;
/// The most items of a list in one of Google's messages, which have no rules of ours.
const MAX_FOREIGN_ITEMS: u64 = 100;

pub(crate) struct Requests {
    text: ExtensionDescriptor,
}

/// The generated code of one request: its table, and the statements that convert its ids to lower case.
pub(crate) struct Code {
    pub(crate) table: String,
    pub(crate) normalize: String,
    values: u64,
}

impl Requests {
    pub(crate) fn new(pool: &DescriptorPool) -> Result<Self, String> {
        let text = pool.get_extension_by_name("souk.policy.v1.text").ok_or("souk.policy.v1.text is not defined")?;
        Ok(Self { text })
    }

    pub(crate) fn code(&self, request: &MessageDescriptor) -> Result<Code, String> {
        let code = self.message(request, "self", &mut Vec::new())?;
        if code.values > MAX_VALUES {
            let (name, values) = (request.full_name(), code.values);
            return Err(format!("{name} may contain {values} values, more than {MAX_VALUES}"));
        }
        Ok(code)
    }

    /// `place` is the Rust expression of the message, `above` the messages that contain it.
    fn message(&self, message: &MessageDescriptor, place: &str, above: &mut Vec<String>) -> Result<Code, String> {
        if above.iter().any(|name| name == message.full_name()) {
            return Err(format!("{} contains itself, so a request with it has no bound", message.full_name()));
        }
        above.push(message.full_name().to_owned());
        let mut whole = Code { table: String::new(), normalize: String::new(), values: 0 };
        for field in message.fields() {
            let part = self.field(&field, place, above).map_err(|error| format!("{}: {error}", field.full_name()))?;
            whole.table.push_str(&part.table);
            whole.normalize.push_str(&part.normalize);
            whole.values += part.values;
        }
        above.pop();
        Ok(whole)
    }

    fn field(&self, field: &FieldDescriptor, place: &str, above: &mut Vec<String>) -> Result<Code, String> {
        let rules = field.field_constraints().map_err(|error| error.to_string())?.unwrap_or_default();
        if rules.ignore() == Ignore::Always {
            return Err("a field of a request must not ignore its rules".to_owned());
        }
        let foreign = !field.parent_message().full_name().starts_with("souk.");
        if field.is_map() {
            return Err("maps in requests are not bounded yet: proto/scan.rs would have to count them".to_owned());
        }
        let (max_items, rules) = match (field.is_list(), foreign) {
            (false, _) => (None, rules),
            (true, true) => (Some(MAX_FOREIGN_ITEMS), FieldRules::default()),
            (true, false) => {
                let Some(field_rules::Type::Repeated(rules)) = rules.r#type else {
                    return Err("a list in a request needs max_items".to_owned());
                };
                let max_items = rules.max_items.ok_or("a list in a request needs max_items")?;
                (Some(max_items), rules.items.map(|items| *items).unwrap_or_default())
            }
        };
        let name = field.name();
        let (content, inner) = match field.kind() {
            Kind::Message(message) => {
                let inner = self.message(&message, "it", above)?;
                (format!("Content::Message(&[{}])", inner.table), inner)
            }
            kind => {
                let content = match (kind, foreign) {
                    (Kind::String, true) => Some(text_content("Opaque", None)),
                    (Kind::String, false) => self.text(field, &rules)?,
                    (Kind::Bytes, false) if !is_bounded_bytes(&rules) => {
                        return Err("bytes in a request need max_len".to_owned());
                    }
                    (Kind::Bytes, _) => None,
                    (
                        Kind::Float | Kind::Double | Kind::Fixed32 | Kind::Fixed64 | Kind::Sfixed32 | Kind::Sfixed64,
                        _,
                    ) if max_items.is_some() => {
                        return Err(
                            "lists of numbers with a fixed width are not counted by proto/scan.rs yet".to_owned()
                        );
                    }
                    _ => max_items.map(|_| "Content::Numbers".to_owned()),
                };
                let normalize = if is_id(&rules) { "it.make_ascii_lowercase();" } else { "" };
                let inner = Code { table: String::new(), normalize: normalize.to_owned(), values: 1 };
                // The items of every list are counted.
                let content = content.or_else(|| max_items.map(|_| text_content("Opaque", None)));
                (content.unwrap_or_default(), inner)
            }
        };
        let mut table = String::new();
        let is_empty = content.is_empty() || (max_items.is_none() && content.ends_with("(&[])"));
        if !is_empty {
            let number = field.number();
            write!(
                table,
                "Field {{ number: {number}, name: {name:?}, max_items: {max_items:?}, content: {content} }},"
            )
            .map_err(|error| error.to_string())?;
        }
        let normalize = match inner.normalize.as_str() {
            "" => String::new(),
            each if max_items.is_some() => format!("for it in &mut {place}.{name} {{ {each} }}"),
            each if field.supports_presence() => format!("if let Some(it) = &mut {place}.{name} {{ {each} }}"),
            each => format!("{{ let it = &mut {place}.{name}; {each} }}"),
        };
        Ok(Code { table, normalize, values: max_items.unwrap_or(1) * inner.values.max(1) })
    }

    /// What `proto/scan.rs` checks of a text; nothing where its rules cover every character.
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
            5 => return Ok(Some(text_content("Code", None))),
            _ => {
                return Err("a text in a request needs a pattern, or the option (souk.policy.v1.text)".to_owned());
            }
        };
        let pattern = rules.pattern.as_deref().map(is_bounded_pattern).transpose()?.unwrap_or_default();
        let bounded = pattern || is_id_rule(rules) || !rules.r#in.is_empty() || rules.r#const.is_some();
        let max_bytes =
            rules.max_bytes.or(rules.len_bytes).or(rules.max_len.or(rules.len).map(|characters| 4 * characters));
        if max_bytes.is_none() && !bounded {
            return Err("a text in a request needs a maximum length".to_owned());
        }
        Ok(text.map(|text| text_content(text, max_bytes)))
    }
}

fn text_content(text: &str, max_bytes: Option<u64>) -> String {
    format!("Content::Text {{ text: Text::{text}, max_bytes: {max_bytes:?} }}")
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

/// Whether the pattern is anchored at both ends, and its matches have a maximum length.
fn is_bounded_pattern(pattern: &str) -> Result<bool, String> {
    let parsed = regex_syntax::parse(pattern).map_err(|error| error.to_string())?;
    let properties = parsed.properties();
    let whole = properties.look_set_prefix().contains(Look::Start) && properties.look_set_suffix().contains(Look::End);
    Ok(whole && properties.maximum_len().is_some())
}
