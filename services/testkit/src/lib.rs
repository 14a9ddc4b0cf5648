//! Fixtures for the tests of services, one file for each purpose.
//!
//! | File | Gives |
//! | --- | --- |
//! | `kit` | the real server over an in-memory pipe, a fixed clock, requests of callers with minted tokens |
//! | `events` | delivery of events to the consumer that is served, without Kafka; what was published, what was parked |
//! | `peers` | the services that a service calls, and the events of those whose topics it consumes |
//! | `raw` | messages as bytes |
//! | `status` | what an error says: its reason, its fields |
//! | `trial` | what every change owes: it happens once or not at all, wherever it is cut off |
//! | `database` | what Postgres knows of a test's database |
//! | `dice` | numbers that follow from a seed |
//! | `log` | the lines that a test logs |

mod database;
mod dice;
mod events;
mod kit;
mod log;
mod peers;
mod raw;
mod status;
mod trial;

pub use database::{deadlocks, one_session, rows_read, until_waiting};
pub use dice::Dice;
pub use events::{deliver, published, record};
pub use kit::{Kit, OPERATOR, certificates};
pub use log::Log;
pub use peers::catalogue::Catalogue;
pub use peers::events::{
    CUSTOMER, authorized, captured, declined, inventory_event, order_event, payment_event, stock_reserved,
};
pub use peers::orders::serve_orders;
pub use peers::unreachable;
pub use peers::users::{Users, serve_users};
pub use peers::warehouse::Warehouse;
pub use raw::Raw;
pub use status::{fields, reason};
pub use trial::{try_event, try_event_at, try_key};
