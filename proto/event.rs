//! Topics and types of events, generated from the contracts: no other code names them.

/// The payload of an event of one topic, such as `order_event::Event`.
pub trait Event: Sized {
    const TOPIC: &'static str;
    /// The full names of all its types, such as `souk.order.v1.OrderPlaced`.
    const TYPES: &'static [&'static str];

    fn event_type(&self) -> &'static str;

    /// An empty event of this type; `None` if the topic has no such type. A consumer matches it to say whether it wants the
    /// type.
    fn of_type(event_type: &str) -> Option<Self>;
}

/// The topics of all services.
pub const TOPICS: &[&str] = crate::rules::TOPICS;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::souk::order::v1::order_event::Event as Order;

    #[test]
    fn an_event_is_named_by_its_contract() {
        assert_eq!((Order::TOPIC, Order::TYPES[0]), ("souk.order.v1", "souk.order.v1.OrderPlaced"));
        for event_type in Order::TYPES {
            assert_eq!(Order::of_type(event_type).expect("it is listed").event_type(), *event_type);
        }
        assert!(Order::of_type("souk.order.v1.OrderDreamt").is_none());
        assert!(TOPICS.contains(&Order::TOPIC) && TOPICS.is_sorted());
    }
}
