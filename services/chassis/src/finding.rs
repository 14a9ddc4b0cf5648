//! What a check of an invariant found.

/// One invariant, checked: over how many things, and where it does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Such as `I1`.
    pub invariant: &'static str,
    /// What was looked at, in the plural.
    pub things: &'static str,
    pub count: u64,
    pub violations: Vec<String>,
}

impl Finding {
    pub fn new(invariant: &'static str, things: &'static str) -> Self {
        Self { invariant, things, count: 0, violations: vec![] }
    }

    /// Looks at one more thing.
    pub fn look(&mut self, violation: Option<String>) {
        self.count += 1;
        self.violations.extend(violation);
    }
}
