//! Events on their way in.

use crate::clock::Clock;
use crate::consume::{Consumer, Record};
use crate::error::Unexpected;

/// Takes in records of one partition, in their order.
pub async fn take_in(consumer: &Consumer, clock: &Clock, records: &[Record]) -> Result<(), Unexpected> {
    let _ = clock;
    let mut tx = consumer.db.begin().await?;
    for record in records {
        consumer.handler.handle(&mut tx, record).await.map_err(|error| Unexpected::Broken(error.to_string()))?;
    }
    tx.commit().await?;
    Ok(())
}
