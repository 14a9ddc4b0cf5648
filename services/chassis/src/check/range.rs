//! Ranges of ids, by which large tables are read in bounded memory.

use uuid::Uuid;

/// The ids after `after`, up to and including `last`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    pub after: Uuid,
    pub last: Uuid,
}

impl Range {
    pub const ALL: Self = Self { after: Uuid::nil(), last: Uuid::max() };

    /// From `after` to the lowest of these ends; if there is none, to the last id.
    pub fn to_first(after: Uuid, ends: impl IntoIterator<Item = Option<Uuid>>) -> Self {
        Self { after, last: ends.into_iter().flatten().min().unwrap_or(Uuid::max()) }
    }

    /// The id after which the next range begins, if there may be one.
    pub fn next(self) -> Option<Uuid> {
        (self.last < Uuid::max()).then_some(self.last)
    }

    /// The first range contains the nil id, too.
    pub fn contains(self, id: Uuid) -> bool {
        (id > self.after || id.is_nil() && self.after.is_nil()) && id <= self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_follow_each_other_and_end_where_the_first_of_several_tables_does() {
        let id = Uuid::from_u128;
        let first = Range::to_first(Uuid::nil(), [Some(id(9)), None, Some(id(4))]);
        assert_eq!(first, Range { after: Uuid::nil(), last: id(4) });
        assert_eq!([0, 1, 4, 5].map(|it| first.contains(id(it))), [true, true, true, false]);
        let second = Range::to_first(first.next().expect("more"), [None, None]);
        assert_eq!(second, Range { after: id(4), last: Uuid::max() });
        assert_eq!([0, 4, 5].map(|it| second.contains(id(it))), [false, false, true]);
        assert_eq!((second.next(), Range::ALL.next()), (None, None));
    }
}
