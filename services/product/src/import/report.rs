//! What became of the lines of a file.

use std::fmt;

use super::REPORTED;
use super::line::Wrong;

#[derive(Debug, Default)]
pub struct Report {
    pub dry_run: bool,
    /// Products that were created, or in a dry run would be.
    pub created: u64,
    /// SKUs that exist.
    pub existed: u64,
    /// Lines with errors.
    pub wrong: u64,
    /// The first of them, by line: which SKU, and what is wrong.
    pub lines: Vec<(u64, String, Vec<Wrong>)>,
    /// Why the import ended before the end of the file.
    pub stopped: Option<String>,
}

impl Report {
    pub fn is_complete(&self) -> bool {
        self.wrong == 0 && self.stopped.is_none()
    }

    pub(crate) fn add_wrong(&mut self, line: u64, sku: &str, wrong: Vec<Wrong>) {
        self.wrong += 1;
        // Lines end out of order, and by little.
        self.lines.push((line, sku.to_owned(), wrong));
        self.lines.sort_by_key(|it| it.0);
        self.lines.truncate(REPORTED);
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (line, sku, wrong) in &self.lines {
            for (column, why) in wrong {
                writeln!(formatter, "line {line}, {sku:?}: {column}: {why}")?;
            }
        }
        let reported = u64::try_from(self.lines.len()).unwrap_or(u64::MAX);
        if self.wrong > reported {
            writeln!(formatter, "and {} further lines", self.wrong - reported)?;
        }
        let created = if self.dry_run { "would be created" } else { "were created" };
        write!(
            formatter,
            "{} products {created}, {} existed and were left as they are, {} lines have errors",
            self.created, self.existed, self.wrong
        )?;
        match &self.stopped {
            Some(why) => write!(formatter, "\nstopped before the end: {why}; run it again to continue"),
            None => Ok(()),
        }
    }
}
