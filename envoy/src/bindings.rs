//! Generates the tables of `lua/requests.lua` from the contracts: the HTTP bindings of each RPC, and the fields of its
//! messages. They are Lua, part of the same program.

use std::collections::BTreeMap;
use std::fmt::Write;

use chassis::rpc::policy::{self, RateClass};
use prost_reflect::{DescriptorPool, DynamicMessage, EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor};

use crate::Error;

const HTTP_BODY: &str = "google.api.HttpBody";

/// One HTTP binding of one RPC.
struct Binding {
    method: String,
    /// Such as `/v1/orders/{order_id}:cancel`.
    template: String,
    request: MessageDescriptor,
    is_stream: bool,
    /// The field that the body maps to; `*` for the whole request, empty for no body.
    body: String,
}

/// The tables: `local contracts = {…}`.
pub(crate) fn write_lua(descriptors: &[u8]) -> Result<String, Error> {
    let bindings = read(descriptors)?;
    let mut tables = Tables::default();
    let mut rules = String::new();
    for binding in &bindings {
        tables.add_message(&binding.request);
        writeln!(rules, "    {},", rule(binding)?).expect("writing to a String cannot fail");
    }
    let mut lua = format!("local contracts = {{\n  bindings = {{\n{rules}  }},\n  messages = {{\n");
    for (name, fields) in &tables.messages {
        writeln!(lua, "    [\"{name}\"] = {{{}}},", fields.join(", ")).expect("writing to a String cannot fail");
    }
    lua.push_str("  },\n  enums = {\n");
    for (name, values) in &tables.enums {
        writeln!(lua, "    [\"{name}\"] = {{{}}},", values.join(", ")).expect("writing to a String cannot fail");
    }
    lua.push_str("  },\n}\n");
    Ok(lua)
}

/// The paths of streams: `local streams = {…}`.
pub(crate) fn write_streams(descriptors: &[u8]) -> Result<String, Error> {
    let streams = read(descriptors)?.into_iter().filter(|binding| binding.is_stream);
    let paths = streams.map(|binding| Ok(format!("\"^{}$\"", path(&binding)?.0)));
    Ok(format!("local streams = {{{}}}\n", paths.collect::<Result<Vec<_>, Error>>()?.join(", ")))
}

/// A regular expression for the paths of streams, with a query.
pub(crate) fn match_streams(descriptors: &[u8]) -> Result<String, Error> {
    let streams = read(descriptors)?.into_iter().filter(|binding| binding.is_stream);
    let paths = streams.map(|binding| {
        let mut literals = binding.template.split('{').map(|it| it.rsplit('}').next().unwrap_or_default());
        let literals: Vec<_> = literals.by_ref().map(|it| it.replace('.', "[.]")).collect();
        literals.join("[^/:]+")
    });
    Ok(format!("({})([?].*)?", paths.collect::<Vec<_>>().join("|")))
}

fn read(descriptors: &[u8]) -> Result<Vec<Binding>, Error> {
    let pool = DescriptorPool::decode(descriptors).map_err(policy::Unreadable::from)?;
    let Some(extension) = pool.get_extension_by_name("google.api.http") else {
        return Ok(vec![]);
    };
    let mut bindings = Vec::new();
    for service in pool.services().filter(|service| service.full_name().starts_with("souk.")) {
        for method in service.methods() {
            let policy = policy::read(&pool, &method)?;
            let options = method.options();
            if policy.rate_class == RateClass::Internal || !options.has_extension(&extension) {
                continue;
            }
            let unreadable = || Error::Binding(method.full_name().to_owned());
            let http = options.get_extension(&extension);
            let first = http.as_message().ok_or_else(unreadable)?;
            let more = first.get_field_by_name("additional_bindings").ok_or_else(unreadable)?;
            let more = more.as_list().into_iter().flatten().filter_map(|it| it.as_message());
            for http in std::iter::once(first).chain(more) {
                let (verb, template) = pattern(http).ok_or_else(unreadable)?;
                let body = http.get_field_by_name("body").ok_or_else(unreadable)?;
                bindings.push(Binding {
                    method: verb,
                    template,
                    request: method.input(),
                    is_stream: method.is_server_streaming(),
                    body: body.as_str().unwrap_or_default().to_owned(),
                });
            }
        }
    }
    Ok(bindings)
}

/// `POST` and `/v1/orders`.
fn pattern(http: &DynamicMessage) -> Option<(String, String)> {
    let text = |name: &str| http.get_field_by_name(name).and_then(|it| it.as_str().map(str::to_owned));
    let set = ["get", "put", "post", "delete", "patch"].into_iter().find(|name| http.has_field_by_name(name))?;
    Some((set.to_uppercase(), text(set)?))
}

/// Its path as a Lua pattern, and the fields that are captured.
fn path(binding: &Binding) -> Result<(String, Vec<String>), Error> {
    let unreadable = || Error::Binding(binding.template.clone());
    let (mut path, mut variables, mut rest) = (String::new(), Vec::new(), binding.template.as_str());
    while let Some((literal, variable)) = rest.split_once('{') {
        let (variable, after) = variable.split_once('}').ok_or_else(unreadable)?;
        // A variable of more than one segment, such as `{name=shops/*}`, would need another pattern.
        if find_field(&binding.request, variable).is_none() {
            return Err(unreadable());
        }
        path.push_str(&escape(literal));
        path.push_str("([^/:]+)");
        variables.push(format!("\"{variable}\""));
        rest = after;
    }
    path.push_str(&escape(rest));
    Ok((path, variables))
}

/// `{method = "POST", path = "/v1/orders/([^/:]+):cancel", variables = {"order_id"}, …}`
fn rule(binding: &Binding) -> Result<String, Error> {
    let unreadable = || Error::Binding(binding.template.clone());
    let (path, variables) = path(binding)?;
    let (method, request, body) = (&binding.method, binding.request.full_name(), binding.body.as_str());
    let is_raw = match body {
        "" | "*" => false,
        field => match binding.request.get_field_by_name(field).ok_or_else(unreadable)?.kind() {
            Kind::Message(message) => message.full_name() == HTTP_BODY,
            _ => false,
        },
    };
    Ok(format!(
        "{{method = \"{method}\", path = \"^{path}$\", variables = {{{}}}, request = \"{request}\", body = \"{body}\", \
         is_raw = {is_raw}}}",
        variables.join(", "),
    ))
}

/// A field by its path, such as `product.product_id`.
fn find_field(message: &MessageDescriptor, path: &str) -> Option<FieldDescriptor> {
    let (first, rest) = path.split_once('.').map_or((path, None), |(first, rest)| (first, Some(rest)));
    let field = message.get_field_by_name(first)?;
    match (rest, field.kind()) {
        (None, _) => Some(field),
        (Some(rest), Kind::Message(message)) => find_field(&message, rest),
        _ => None,
    }
}

/// Escapes a literal for a Lua pattern.
fn escape(literal: &str) -> String {
    let escape = |it: char| if it.is_ascii_alphanumeric() || it == '/' { it.to_string() } else { format!("%{it}") };
    literal.chars().map(escape).collect()
}

/// Every message and enum that a request may contain, by name.
#[derive(Default)]
struct Tables {
    messages: BTreeMap<String, Vec<String>>,
    enums: BTreeMap<String, Vec<String>>,
}

impl Tables {
    fn add_message(&mut self, message: &MessageDescriptor) {
        if self.messages.contains_key(message.full_name()) {
            return;
        }
        // Inserted before its fields: a message may contain itself.
        self.messages.insert(message.full_name().to_owned(), vec![]);
        let fields = message.fields().map(|field| self.field(&field)).collect();
        self.messages.insert(message.full_name().to_owned(), fields);
    }

    /// `{name = "items", json = "items", kind = "message", type = "souk.order.v1.OrderItem", is_list = true}`
    fn field(&mut self, field: &FieldDescriptor) -> String {
        let (shape, kind) = match field.kind() {
            Kind::Message(entry) if field.is_map() => (", is_map = true", entry.map_entry_value_field().kind()),
            kind => (if field.is_list() { ", is_list = true" } else { "" }, kind),
        };
        let (kind, type_name) = self.kind(&kind);
        let type_name = type_name.map(|it| format!(", type = \"{it}\"")).unwrap_or_default();
        let (name, json) = (field.name(), field.json_name());
        format!("{{name = \"{name}\", json = \"{json}\", kind = \"{kind}\"{type_name}{shape}}}")
    }

    /// How JSON represents it, and the name of its message or enum, if it is one.
    fn kind(&mut self, kind: &Kind) -> (&'static str, Option<String>) {
        let json = match kind {
            Kind::Bool => "bool",
            Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => "int32",
            Kind::Uint32 | Kind::Fixed32 => "uint32",
            Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => "int64",
            Kind::Uint64 | Kind::Fixed64 => "uint64",
            Kind::Float | Kind::Double => "number",
            Kind::String | Kind::Bytes => "string",
            Kind::Enum(it) if it.full_name() == "google.protobuf.NullValue" => "any",
            Kind::Enum(it) => return ("enum", Some(self.add_enum(it))),
            Kind::Message(it) => match it.full_name() {
                "google.protobuf.Timestamp" | "google.protobuf.Duration" | "google.protobuf.FieldMask" => "string",
                "google.protobuf.Struct" | "google.protobuf.Value" | "google.protobuf.ListValue" => "any",
                "google.protobuf.Any" => "any",
                name if is_wrapper(name) => {
                    return it.fields().next().map_or(("any", None), |value| self.kind(&value.kind()));
                }
                name => {
                    self.add_message(it);
                    return ("message", Some(name.to_owned()));
                }
            },
        };
        (json, None)
    }

    fn add_enum(&mut self, it: &EnumDescriptor) -> String {
        let values = it.values().map(|value| format!("{} = true", value.name())).collect();
        self.enums.insert(it.full_name().to_owned(), values);
        it.full_name().to_owned()
    }
}

/// Such as `google.protobuf.StringValue`, whose JSON is the wrapped value.
fn is_wrapper(name: &str) -> bool {
    let wrapped = name.strip_prefix("google.protobuf.").and_then(|name| name.strip_suffix("Value"));
    wrapped.is_some_and(|it| {
        ["Double", "Float", "Int64", "UInt64", "Int32", "UInt32", "Bool", "String", "Bytes"].contains(&it)
    })
}
