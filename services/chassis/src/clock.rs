//! Time and ids. Tests fix them.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use time::OffsetDateTime;
use uuid::{ContextV7, Timestamp, Uuid};

#[derive(Debug, Clone, Default)]
pub enum Clock {
    #[default]
    System,
    Fixed(Arc<Fixed>),
}

#[derive(Debug)]
pub struct Fixed {
    now: Mutex<OffsetDateTime>,
    ids: Mutex<ContextV7>,
}

impl Clock {
    pub fn fixed(now: OffsetDateTime) -> Self {
        Self::Fixed(Arc::new(Fixed { now: Mutex::new(now), ids: Mutex::new(ContextV7::new()) }))
    }

    /// In whole microseconds, which is what the database keeps.
    pub fn now(&self) -> OffsetDateTime {
        let now = match self {
            Self::System => OffsetDateTime::now_utc(),
            Self::Fixed(fixed) => *fixed.now.lock().expect("nothing panics while it holds this lock"),
        };
        now.replace_nanosecond(now.microsecond() * 1_000).expect("a microsecond count is within a second")
    }

    /// UUIDv7: sorts by time.
    pub fn new_id(&self) -> Uuid {
        match self {
            Self::System => Uuid::now_v7(),
            Self::Fixed(fixed) => {
                let now = self.now();
                let ids = fixed.ids.lock().expect("nothing panics while it holds this lock");
                Uuid::new_v7(Timestamp::from_unix(&*ids, now.unix_timestamp().unsigned_abs(), now.nanosecond()))
            }
        }
    }

    /// Moves a fixed clock on; the system's goes by itself.
    pub fn advance(&self, by: Duration) {
        if let Self::Fixed(fixed) = self {
            *fixed.now.lock().expect("nothing panics while it holds this lock") += by;
        }
    }
}

/// As contracts write it.
pub fn timestamp(at: OffsetDateTime) -> prost_types::Timestamp {
    prost_types::Timestamp { seconds: at.unix_timestamp(), nanos: at.nanosecond().cast_signed() }
}
