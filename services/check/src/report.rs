//! What is printed: one line for each invariant, and what violates it.

use chassis::check::{Finding, MOST_VIOLATIONS};

/// How many violations of one kind are printed.
const SHOWN: usize = 20;

/// Every invariant, and what is not asked here.
const INVARIANTS: [(&str, &str); 11] = [
    ("I1", ""),
    ("I2", "the provider was not asked: SOUK_CHECK_PROVIDER_URL is not set"),
    ("I3", ""),
    ("I4", ""),
    ("I5", ""),
    ("I6", ""),
    ("I7", "there are no notifications yet"),
    ("I8", "no client's journal was given (--journal)"),
    ("I9", ""),
    ("I10", "no table says it: the tests of every RPC call it as somebody else, at the role and at the edge"),
    ("I11", ""),
];

pub(crate) fn report(findings: &[Finding]) {
    for (invariant, unasked) in INVARIANTS {
        let findings: Vec<_> = findings.iter().filter(|finding| finding.invariant == invariant).collect();
        if findings.is_empty() {
            println!("{invariant:4}--  {unasked}");
            continue;
        }
        let violated = findings.iter().any(|finding| !finding.violations.is_empty());
        let counts: Vec<_> = findings.iter().map(|finding| describe(finding)).collect();
        let verdict = if violated { "VIOLATED" } else { "ok" };
        println!("{invariant:4}{verdict}  {}", counts.join(", "));
        let shown = findings.iter().flat_map(|finding| finding.violations.iter().take(SHOWN));
        for (thing, violation) in shown {
            println!("        {thing}: {violation}");
        }
    }
}

fn describe(finding: &Finding) -> String {
    let Finding { things, count, violations, excused, .. } = finding;
    let wrong = match violations.len() {
        0 => String::new(),
        MOST_VIOLATIONS => format!("at least {MOST_VIOLATIONS} of "),
        wrong => format!("{wrong} of "),
    };
    let excused = if *excused == 0 { String::new() } else { format!(" ({excused} wrong by what was discarded)") };
    format!("{wrong}{count} {things}{excused}")
}
