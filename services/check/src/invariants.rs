//! The invariants, in the order in which they are reported.

use std::fmt::Write;

pub(crate) struct Invariant {
    /// As in [`chassis::check::Finding::invariant`].
    pub(crate) name: &'static str,
    pub(crate) promise: &'static str,
    pub(crate) checked: &'static str,
    /// The reason that is reported if it was not checked.
    pub(crate) unchecked: &'static str,
}

pub(crate) const INVARIANTS: [Invariant; 12] = [
    Invariant {
        name: "I1",
        promise: "stock is never oversold",
        checked: "the units of every SKU add up, and agree with the reservations",
        unchecked: "",
    },
    Invariant {
        name: "I2",
        promise: "an order is captured once at most, and an order that was not sold keeps no money",
        checked: "all payment intents of the provider, against the ledger and the orders",
        unchecked: "the provider was not read: SOUK_CHECK_PROVIDER_URL is not set",
    },
    Invariant {
        name: "I3",
        promise: "money is conserved",
        checked: "every payment against its transfers in the ledger and its refunds",
        unchecked: "",
    },
    Invariant {
        name: "I4",
        promise: "every order settles in time",
        checked: "deadlines, payments, stock, refunds and returns of every order; parked keys",
        unchecked: "",
    },
    Invariant {
        name: "I5",
        promise: "an event is published if and only if it was recorded, in order and without gaps",
        checked: "every record of every topic, against the tables and the outbox",
        unchecked: "",
    },
    Invariant {
        name: "I6",
        promise: "one idempotency key has one effect",
        checked: "every order against the stored responses; the keys in the clients' journal",
        unchecked: "",
    },
    Invariant {
        name: "I7",
        promise: "a customer is notified once of each outcome of an order",
        checked: "every outcome of every order against its e-mail, and whether notifications ended in time and in turn",
        unchecked: "whether there was a text message, which depends on the settings of its time",
    },
    Invariant {
        name: "I8",
        promise: "what was acknowledged is durable",
        checked: "acknowledged attempts in the clients' journal, against the orders",
        unchecked: "no client's journal was given (--journal)",
    },
    Invariant {
        name: "I9",
        promise: "states change by legal steps only",
        checked: "every order against its events; reservations and payments against their histories",
        unchecked: "",
    },
    Invariant {
        name: "I10",
        promise: "a customer sees only what is theirs",
        checked: "nothing: it is not visible in tables",
        unchecked: "not visible in tables: the tests of every RPC call it as another customer, at the role and at the edge",
    },
    Invariant {
        name: "I11",
        promise: "no secrets and no personal data where they do not belong",
        checked: "every text, document and binary value in every table and topic",
        unchecked: "",
    },
    Invariant {
        name: "I12",
        promise: "figures are those of the orders",
        checked: "the stages of every order against those in which it is counted, and sums against the orders that are counted; \
                  with --at-rest, amounts against the orders",
        unchecked: "",
    },
];

/// The invariants and what is checked for each, for `souk check --help`.
pub fn help() -> String {
    let mut text = "Invariants, and what is checked for each:\n".to_owned();
    for Invariant { name, promise, checked, .. } in INVARIANTS {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  {name:4}{promise}:\n      {checked}");
    }
    text
}
