//! What the check of an invariant works with.

mod finding;
mod range;

pub use finding::{Excuses, Finding, MOST_VIOLATIONS};
pub use range::Range;
