//! Prints the report: one line for each invariant, and its violations.

use chassis::check::{Finding, MAX_VIOLATIONS};

use crate::invariants::{INVARIANTS, Invariant};
use crate::secrets::Scan;

/// How many violations of one kind are printed.
const SHOWN: usize = 20;

pub(crate) fn print(findings: &[Finding]) {
    for Invariant { name, unchecked, .. } in INVARIANTS {
        let findings: Vec<_> = findings.iter().filter(|finding| finding.invariant == name).collect();
        if findings.is_empty() {
            println!("{name:4}--  {unchecked}");
            continue;
        }
        let violated = findings.iter().any(|finding| !finding.violations.is_empty());
        let counts: Vec<_> = findings.iter().map(|finding| describe(finding)).collect();
        let verdict = if violated { "VIOLATED" } else { "ok" };
        println!("{name:4}{verdict}  {}", counts.join(", "));
        let shown = findings.iter().flat_map(|finding| finding.violations.iter().take(SHOWN));
        for (id, violation) in shown {
            println!("        {id}: {violation}");
        }
    }
}

/// The number of values that were scanned for secrets, by table or topic.
pub(crate) fn print_scanned(scan: &Scan) {
    for (place, tables) in &scan.scanned {
        let counts: Vec<_> = tables.iter().map(|(table, count)| format!("{table} {count}")).collect();
        println!("        {place}: {}", counts.join(", "));
    }
}

fn describe(finding: &Finding) -> String {
    let Finding { subject, checked, violations, exempted, .. } = finding;
    let wrong = match violations.len() {
        0 => String::new(),
        MAX_VIOLATIONS => format!("at least {MAX_VIOLATIONS} of "),
        wrong => format!("{wrong} of "),
    };
    let exempted =
        if *exempted == 0 { String::new() } else { format!(" ({exempted} exempt by discarded dead letters)") };
    format!("{wrong}{checked} {subject}{exempted}")
}
