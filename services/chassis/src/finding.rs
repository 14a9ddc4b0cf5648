//! What a check of an invariant found.

use std::collections::BTreeMap;

/// One invariant, checked: over how many things, and where it does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Such as `I1`.
    pub invariant: &'static str,
    /// What was looked at, in the plural.
    pub things: &'static str,
    pub count: u64,
    /// By the thing that violates it: what is wrong.
    pub violations: BTreeMap<String, String>,
}

impl Finding {
    pub fn new(invariant: &'static str, things: &'static str) -> Self {
        Self { invariant, things, count: 0, violations: BTreeMap::new() }
    }

    /// Looks at one more thing.
    pub fn look(&mut self, thing: impl ToString, violation: Option<String>) {
        self.count += 1;
        if let Some(violation) = violation {
            self.violations.insert(thing.to_string(), violation);
        }
    }

    /// Forgives what an earlier look did not find wrong: it was only on its way.
    pub fn keep_repeated(&mut self, earlier: &Self) {
        self.violations.retain(|thing, _| earlier.violations.contains_key(thing));
    }
}
