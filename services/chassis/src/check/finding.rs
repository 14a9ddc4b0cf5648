//! What a check of an invariant found.

use std::collections::{BTreeMap, HashSet};

/// How many violations of one kind are kept: those whose ids come first. More change nothing about the verdict.
pub const MOST_VIOLATIONS: usize = 1_000;

/// Ids about which something is wrong because of what an operator did on purpose.
#[derive(Debug, Default)]
pub struct Exemptions(HashSet<String>);

impl FromIterator<String> for Exemptions {
    fn from_iter<T: IntoIterator<Item = String>>(ids: T) -> Self {
        Self(ids.into_iter().collect())
    }
}

/// One invariant, checked: of how many things, and where it is violated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Such as `I1`.
    pub invariant: &'static str,
    /// What was checked, in the plural.
    pub subject: &'static str,
    pub checked: u64,
    /// What is wrong, by the id of what it is wrong about.
    pub violations: BTreeMap<String, String>,
    /// How many violations are left out, as an operator caused them on purpose.
    pub exempted: u64,
}

impl Finding {
    pub fn new(invariant: &'static str, subject: &'static str) -> Self {
        Self { invariant, subject, checked: 0, violations: BTreeMap::new(), exempted: 0 }
    }

    /// Adds one that was checked, and what is wrong about it.
    pub fn add(&mut self, id: impl ToString, violation: Option<String>) {
        self.checked += 1;
        if let Some(violation) = violation {
            self.violate(id, violation);
        }
    }

    /// Adds one that was checked and may be exempt. Exempted violations take no room from the others.
    pub fn add_unless_exempt(&mut self, exemptions: &Exemptions, id: impl ToString, violation: Option<String>) {
        let id = id.to_string();
        let is_exempt = violation.is_some() && exemptions.0.contains(&id);
        self.exempted += u64::from(is_exempt);
        self.add(id, violation.filter(|_| !is_exempt));
    }

    /// Adds a violation about something that is counted elsewhere.
    pub fn violate(&mut self, id: impl ToString, violation: String) {
        self.violations.insert(id.to_string(), violation);
        if self.violations.len() > MOST_VIOLATIONS {
            self.violations.pop_last();
        }
    }

    /// Adds what was found in another range of the same subject.
    pub fn merge(&mut self, other: Self) {
        self.checked += other.checked;
        self.exempted += other.exempted;
        for (id, violation) in other.violations {
            self.violate(id, violation);
        }
    }

    /// Drops violations about what an earlier check did not find wrong.
    pub fn keep_repeated(&mut self, earlier: &Self) {
        self.violations.retain(|id, _| earlier.violations.contains_key(id));
    }
}
