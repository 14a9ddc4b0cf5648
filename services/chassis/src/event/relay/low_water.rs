//! Where reading an outbox begins. Ids are drawn before transactions commit, so one below those that were published may
//! still appear, and a reader that remembered the last id would lose it. But deleted rows stay in the index until they are
//! vacuumed, and reading from the very start would walk over all of them each time.

/// Nothing will ever appear at or below the mark. An event is appended after its aggregate's row was locked, by when its
/// transaction has a number. So once every transaction is over that had a number when an id was seen, all up to that id
/// have appeared.
#[derive(Debug, Default)]
pub(crate) struct LowWater {
    mark: i64,
    highest: i64,
    /// An id that was published, and the first transaction number that was not in use by then.
    candidate: Option<(i64, i64)>,
}

impl LowWater {
    pub(crate) fn mark(&self) -> i64 {
        self.mark
    }

    pub(crate) fn published(&mut self, highest: Option<i64>) {
        self.highest = self.highest.max(highest.unwrap_or(0));
    }

    /// Raises the mark by what one snapshot shows: the oldest running transaction, the next to begin, and the first id above
    /// the mark in the table.
    pub(crate) fn raise(&mut self, running: i64, next: i64, first: Option<i64>) {
        if let Some((id, begun)) = self.candidate
            && running >= begun
        {
            // What was published and is not deleted yet, or failed, is read again.
            self.mark = self.mark.max(first.map_or(id, |first| id.min(first - 1)));
            self.candidate = None;
        }
        if self.candidate.is_none() && self.highest > self.mark {
            self.candidate = Some((self.highest, next));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::LowWater;

    #[test]
    fn the_mark_waits_for_every_transaction_that_could_still_commit_below_it() {
        let mut water = LowWater::default();
        water.published(Some(10));
        water.raise(100, 105, None);
        assert_eq!(water.mark(), 0, "104 may still commit an event with id 9");
        water.published(Some(20));
        water.raise(104, 110, None);
        assert_eq!(water.mark(), 0);
        water.raise(105, 110, None);
        assert_eq!(water.mark(), 10);
        water.raise(110, 111, None);
        assert_eq!(water.mark(), 20);
    }

    #[test]
    fn the_mark_stays_below_what_stands_in_the_table() {
        let mut water = LowWater::default();
        water.published(Some(10));
        water.raise(100, 100, Some(7));
        water.raise(100, 101, Some(7));
        assert_eq!(water.mark(), 6);
        water.raise(101, 102, None);
        assert_eq!(water.mark(), 10);
    }
}
