//! The moment at which a connection is held, and what tells it.

/// The moment at which a connection is held, once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moment {
    /// Postgres has executed the COMMIT of a transaction with this text; the response is lost.
    Commit(&'static str),
    /// Postgres has sent events to a relay; they do not arrive.
    RelayRead,
    /// A relay deletes events that the broker has acknowledged; the statement does not arrive.
    RelayDelete,
    /// The server has answered a request that contains this text; the response is lost.
    Response(&'static str),
}

/// The most bytes of a response without rows of an outbox.
pub(crate) const ROWS: usize = 200;

/// Texts that identify a transaction. An RPC stores its response under the name of its request.
pub(crate) const CREATE_ORDER: &str = "CreateOrderRequest";
/// A consumer passes its name to the inbox query: a text, after its length.
pub(crate) const INVENTORY_CONSUMES: &str = "\0\0\0\x09inventory";
pub(crate) const PAYMENT_CONSUMES: &str = "\0\0\0\x07payment";
pub(crate) const ORDER_CONSUMES: &str = "\0\0\0\x05order";
pub(crate) const NOTIFICATION_CONSUMES: &str = "\0\0\0\x0cnotification";
pub(crate) const TEXTS: [&str; 5] =
    [CREATE_ORDER, INVENTORY_CONSUMES, PAYMENT_CONSUMES, ORDER_CONSUMES, NOTIFICATION_CONSUMES];

/// The state of one connection.
#[derive(Default)]
pub(crate) struct Watched {
    pub(crate) is_relay: bool,
    pub(crate) has_rows: bool,
    /// The [`TEXTS`] that it has sent in the current transaction.
    pub(crate) sent: Vec<&'static str>,
}
