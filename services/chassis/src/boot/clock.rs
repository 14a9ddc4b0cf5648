//! Time and ids, which tests can fix. Replicas that compare times with each other, such as the ends of leases, use their
//! database's clock: those of two machines differ, and may be adjusted at any time.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use time::OffsetDateTime;
use tokio::sync::watch;
use uuid::{ContextV7, Timestamp, Uuid};

#[derive(Debug, Clone, Default)]
pub enum Clock {
    #[default]
    System,
    Fixed(Arc<Fixed>),
    Database(Arc<DatabaseClock>),
}

/// The time of a database when it was last read, and our monotonic clock at that moment.
#[derive(Debug)]
pub struct DatabaseClock(watch::Sender<Option<(Instant, OffsetDateTime)>>);

#[derive(Debug)]
pub struct Fixed {
    now: Mutex<OffsetDateTime>,
    ids: Mutex<ContextV7>,
}

impl Clock {
    pub fn fixed(now: OffsetDateTime) -> Self {
        Self::Fixed(Arc::new(Fixed { now: Mutex::new(now), ids: Mutex::new(ContextV7::new()) }))
    }

    /// The clock of a role's database, see [`Role::database`](crate::Role::database). A fixed clock stays fixed.
    pub fn of_database(&self) -> Self {
        match self {
            Self::Fixed(_) => self.clone(),
            Self::System | Self::Database(_) => Self::Database(Arc::new(DatabaseClock(watch::Sender::new(None)))),
        }
    }

    /// The database's time, and when it was read.
    pub(crate) fn set(&self, at: Instant, theirs: OffsetDateTime) {
        if let Self::Database(clock) = self {
            clock.0.send_replace(Some((at, theirs)));
        }
    }

    /// Waits until the database's time is known.
    pub(crate) async fn known(&self) {
        if let Self::Database(clock) = self {
            clock.0.subscribe().wait_for(Option::is_some).await.ok();
        }
    }

    /// In whole microseconds, the precision of the database.
    pub fn now(&self) -> OffsetDateTime {
        let now = match self {
            Self::System => OffsetDateTime::now_utc(),
            Self::Database(clock) => {
                clock.0.borrow().map_or_else(OffsetDateTime::now_utc, |(at, theirs)| theirs + at.elapsed())
            }
            Self::Fixed(fixed) => *fixed.now.lock().expect("nothing panics while it holds this lock"),
        };
        now.replace_nanosecond(now.microsecond() * 1_000).expect("a microsecond count is within a second")
    }

    /// UUIDv7: sorts by time.
    pub fn new_id(&self) -> Uuid {
        match self {
            Self::System | Self::Database(_) => Uuid::now_v7(),
            Self::Fixed(fixed) => {
                let now = self.now();
                let ids = fixed.ids.lock().expect("nothing panics while it holds this lock");
                Uuid::new_v7(Timestamp::from_unix(&*ids, now.unix_timestamp().unsigned_abs(), now.nanosecond()))
            }
        }
    }

    /// Advances a fixed clock; others ignore it.
    pub fn advance(&self, by: Duration) {
        if let Self::Fixed(fixed) = self {
            *fixed.now.lock().expect("nothing panics while it holds this lock") += by;
        }
    }
}

/// A time of the contracts' type, if it is well-formed and from the year 1970 to 9999: what UUIDs and Postgres can have, too.
pub fn parse_timestamp(it: &prost_types::Timestamp) -> Option<OffsetDateTime> {
    let seconds = OffsetDateTime::from_unix_timestamp(it.seconds).ok().filter(|_| it.seconds >= 0)?;
    seconds.replace_nanosecond(u32::try_from(it.nanos).ok()?).ok()
}

/// The time in the contracts' type.
pub fn timestamp(at: OffsetDateTime) -> prost_types::Timestamp {
    prost_types::Timestamp { seconds: at.unix_timestamp(), nanos: at.nanosecond().cast_signed() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_parsed_only_if_it_is_well_formed_and_from_1970_to_9999() {
        const LAST: i64 = 253_402_300_799;
        for (seconds, nanos) in [(0, 0), (1_767_225_600, 5), (LAST, 999_999_999)] {
            let it = prost_types::Timestamp { seconds, nanos };
            assert_eq!(parse_timestamp(&it).map(timestamp), Some(it));
        }
        for (seconds, nanos) in [
            (-1, 0),
            (LAST + 1, 0),
            (i64::MAX, 0),
            (0, -1),
            (0, i32::MIN),
            (0, 1_000_000_000),
            (LAST, 1_000_000_000),
            (LAST, i32::MAX),
        ] {
            assert_eq!(parse_timestamp(&prost_types::Timestamp { seconds, nanos }), None, "{seconds} {nanos}");
        }
    }
}
