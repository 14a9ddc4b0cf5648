//! Topics and types of events: for the oneof of each message such as `OrderEvent`, its topic and the types of its cases.

use std::error::Error;
use std::fmt::Write as _;

use prost_reflect::{DescriptorPool, Kind, MessageDescriptor};

/// The implementations of `crate::event::Event`, and the list of all topics.
pub(crate) fn write_events(pool: &DescriptorPool) -> Result<String, Box<dyn Error>> {
    let (mut code, mut topics) = (String::new(), Vec::new());
    for message in pool.all_messages().filter(is_envelope) {
        let topic = message.package_name().to_owned();
        let oneof = message.oneofs().next().ok_or("an event without cases")?;
        let (mut types, mut names, mut samples) = (String::new(), String::new(), String::new());
        for field in oneof.fields() {
            let Kind::Message(case) = field.kind() else {
                return Err(format!("{} is not a message", field.full_name()).into());
            };
            // The generated oneof has a case for each field, named after it.
            let (variant, name) = (case.name(), case.full_name());
            if field.name() != snake_case(variant) {
                return Err(format!("{} is not named after its type {name}", field.full_name()).into());
            }
            write!(types, "\"{name}\", ")?;
            write!(names, "Self::{variant}(_) => \"{name}\", ")?;
            write!(samples, "\"{name}\" => Self::{variant}(Default::default()), ")?;
        }
        let module = snake_case(message.name());
        writeln!(
            code,
            "impl crate::event::Event for {}::{module}::Event {{
               const TOPIC: &'static str = \"{topic}\";
               const TYPES: &'static [&'static str] = &[{types}];
               fn event_type(&self) -> &'static str {{ match self {{ {names} }} }}
               fn of_type(event_type: &str) -> Option<Self> {{ Some(match event_type {{ {samples} _ => return None }}) }}
             }}",
            topic.replace('.', "::"),
        )?;
        topics.push(topic);
    }
    topics.sort();
    writeln!(code, "pub(crate) const TOPICS: &[&str] = &{topics:?};")?;
    Ok(code)
}

/// Whether every record of a topic is such a message: `OrderEvent` of the topic `souk.order.v1`.
fn is_envelope(message: &MessageDescriptor) -> bool {
    let is_ours = message.package_name().starts_with("souk.") && message.name().ends_with("Event");
    is_ours && message.oneofs().any(|oneof| oneof.name() == "event")
}

fn snake_case(name: &str) -> String {
    let mut snake = String::new();
    for letter in name.chars() {
        if letter.is_ascii_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        snake.push(letter.to_ascii_lowercase());
    }
    snake
}
