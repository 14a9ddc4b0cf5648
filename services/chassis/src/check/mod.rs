//! Types for checking invariants.

mod finding;
mod range;

pub use finding::{Exemptions, Finding, MAX_VIOLATIONS};
pub use range::Range;
