//! The result of checking an invariant.

use std::collections::{BTreeMap, HashSet};

/// How many violations of one subject are kept: those with the lowest ids. More do not change the result.
pub const MAX_VIOLATIONS: usize = 1_000;

/// Ids whose violations an operator caused on purpose.
#[derive(Debug, Default)]
pub struct Exemptions(HashSet<String>);

impl Exemptions {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<String> for Exemptions {
    fn from_iter<T: IntoIterator<Item = String>>(ids: T) -> Self {
        Self(ids.into_iter().collect())
    }
}

/// The result of checking one invariant of one kind of subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Such as `I1`.
    pub invariant: &'static str,
    /// The kind of what was checked, in the plural.
    pub subject: &'static str,
    pub checked: u64,
    /// What is wrong, by id.
    pub violations: BTreeMap<String, String>,
    /// How many violations are left out, as they are exempt.
    pub exempted: u64,
}

impl Finding {
    pub fn new(invariant: &'static str, subject: &'static str) -> Self {
        Self { invariant, subject, checked: 0, violations: BTreeMap::new(), exempted: 0 }
    }

    /// Counts a subject, and adds its violation if there is one.
    pub fn add(&mut self, id: impl ToString, violation: Option<String>) {
        self.checked += 1;
        if let Some(violation) = violation {
            self.violate(id, violation);
        }
    }

    /// The same, for a subject that may be exempt. Exempt violations do not count against the maximum.
    pub fn add_unless_exempt(&mut self, exemptions: &Exemptions, id: impl ToString, violation: Option<String>) {
        let id = id.to_string();
        let is_exempt = violation.is_some() && exemptions.0.contains(&id);
        self.exempted += u64::from(is_exempt);
        self.add(id, violation.filter(|_| !is_exempt));
    }

    /// Adds a violation of a subject that is counted elsewhere.
    pub fn violate(&mut self, id: impl ToString, violation: String) {
        self.violations.insert(id.to_string(), violation);
        if self.violations.len() > MAX_VIOLATIONS {
            self.violations.pop_last();
        }
    }

    /// Adds the finding of another range.
    pub fn merge(&mut self, other: Self) {
        self.checked += other.checked;
        self.exempted += other.exempted;
        for (id, violation) in other.violations {
            self.violate(id, violation);
        }
    }

    /// Drops violations of ids that an earlier check found sound.
    pub fn keep_repeated(&mut self, earlier: &Self) {
        self.violations.retain(|id, _| earlier.violations.contains_key(id));
    }
}
