//! What the check of an invariant works with.

mod finding;
mod range;

pub use finding::{Exemptions, Finding, MOST_VIOLATIONS};
pub use range::Range;
