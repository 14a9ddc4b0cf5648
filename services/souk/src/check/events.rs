//! I5: an event was published if and only if it was recorded; for each key, first occurrences came in order and without
//! gaps.

use std::collections::HashMap;

use bus::Story;
use chassis::{Finding, Unexpected};
use sqlx::PgPool;
use uuid::Uuid;

use super::Error;

pub(crate) async fn check(
    brokers: &str,
    topic: &'static str,
    db: &PgPool,
    recorded: impl AsyncFn() -> Result<HashMap<Uuid, i64>, Unexpected>,
) -> Result<Finding, Error> {
    // In an open shop all of it moves. What was recorded before and does not wait must be in the topic; what is in the
    // topic must have been recorded by the time it was read.
    let before = recorded().await?;
    let waiting = sqlx::query!(r#"select key, min(version) as "first!" from outbox group by key"#);
    let waiting = waiting.fetch_all(db).await.map_err(Unexpected::from)?;
    let waiting = waiting.into_iter().map(|row| (row.key, row.first)).collect();
    let brokers = brokers.to_owned();
    let story = tokio::task::spawn_blocking(move || bus::replay(&brokers, topic)).await;
    let story = story.map_err(|error| Unexpected::Broken(format!("reading {topic}: {error}")))??;
    Ok(compare(topic, &Recorded { before, after: recorded().await? }, &waiting, &story))
}

/// The last version of each key, before and after the topic was read.
pub(crate) struct Recorded {
    pub(crate) before: HashMap<Uuid, i64>,
    pub(crate) after: HashMap<Uuid, i64>,
}

/// `waiting`: the first version of each key that is still in the outbox.
pub(crate) fn compare(
    topic: &'static str,
    recorded: &Recorded,
    waiting: &HashMap<Uuid, i64>,
    story: &Story,
) -> Finding {
    let mut finding = Finding::new("I5", topic);
    for (key, last) in &recorded.after {
        let told = story.get(key).map(Vec::as_slice).unwrap_or_default();
        let in_order = told.iter().enumerate().all(|(at, version)| *version == at as i64 + 1);
        let before = recorded.before.get(key).copied().unwrap_or_default();
        let needed = waiting.get(key).map_or(before, |first| before.min(first - 1));
        let count = told.len() as i64;
        let why = if !in_order {
            Some("out of order")
        } else if count < needed {
            Some("lost")
        } else if count > *last {
            Some("published, and not recorded")
        } else {
            None
        };
        finding.look(key, why.map(|why| format!("{why}: {last} recorded, published {told:?}")));
    }
    for (key, told) in story.iter().filter(|(key, _)| !recorded.after.contains_key(key)) {
        finding.look(key, Some(format!("published {told:?}, and nothing is recorded")));
    }
    finding
}
