//! What a check of an invariant found.

use std::collections::{BTreeMap, HashSet};

/// How many violations of one kind are kept: those whose things come first. More change nothing about the verdict.
pub const MOST_VIOLATIONS: usize = 1_000;

/// Things about which something is wrong because of what an operator did on purpose.
#[derive(Debug, Default)]
pub struct Excuses(HashSet<String>);

impl FromIterator<String> for Excuses {
    fn from_iter<T: IntoIterator<Item = String>>(things: T) -> Self {
        Self(things.into_iter().collect())
    }
}

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
    /// How many violations are explained by something that an operator did on purpose.
    pub excused: u64,
}

impl Finding {
    pub fn new(invariant: &'static str, things: &'static str) -> Self {
        Self { invariant, things, count: 0, violations: BTreeMap::new(), excused: 0 }
    }

    /// Looks at one more thing.
    pub fn look(&mut self, thing: impl ToString, violation: Option<String>) {
        self.count += 1;
        if let Some(violation) = violation {
            self.violate(thing, violation);
        }
    }

    /// Looks at one more thing, whose violation may be excused. Excused ones take no room from the others.
    pub fn look_unless(&mut self, excuses: &Excuses, thing: impl ToString, violation: Option<String>) {
        let thing = thing.to_string();
        let is_excused = violation.is_some() && excuses.0.contains(&thing);
        self.excused += u64::from(is_excused);
        self.look(thing, violation.filter(|_| !is_excused));
    }

    /// Something is wrong with a thing that is counted elsewhere.
    pub fn violate(&mut self, thing: impl ToString, violation: String) {
        self.violations.insert(thing.to_string(), violation);
        if self.violations.len() > MOST_VIOLATIONS {
            self.violations.pop_last();
        }
    }

    /// Adds what was found of other things of the same kind.
    pub fn absorb(&mut self, other: Self) {
        self.count += other.count;
        self.excused += other.excused;
        for (thing, violation) in other.violations {
            self.violate(thing, violation);
        }
    }

    /// Forgives what an earlier look did not find wrong: it was only on its way.
    pub fn keep_repeated(&mut self, earlier: &Self) {
        self.violations.retain(|thing, _| earlier.violations.contains_key(thing));
    }
}
