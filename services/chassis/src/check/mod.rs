//! Types for checking invariants.

mod finding;
mod range;

pub use finding::{Exemptions, Finding, MOST_VIOLATIONS};
pub use range::Range;
