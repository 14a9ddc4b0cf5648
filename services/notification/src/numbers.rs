//! How many text messages a phone number gets within an hour of the clock, whatever accounts name it: nobody proves that a number is theirs. An
//! e-mail address is that of one account, whose limit is enough.

use std::sync::Arc;
use std::time::Duration;

use chassis::{Next, Unexpected};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use time::OffsetDateTime;
use tokio::sync::OnceCell;

use crate::service::Service;

const HOUR: Duration = Duration::from_secs(3_600);

/// Has the key of the hashes that stand for numbers, when it was read.
#[derive(Default)]
pub(crate) struct Numbers(OnceCell<Hmac<Sha256>>);

impl Numbers {
    /// Counts a message that will be sent in the hour that begins at `hour`, if there is room. Otherwise: when there is.
    pub(crate) async fn take(
        &self,
        service: &Service,
        phone: &str,
        hour: OffsetDateTime,
    ) -> Result<Result<(), OffsetDateTime>, Unexpected> {
        let Some(most) = service.per_hour else { return Ok(Ok(())) };
        let taken = sqlx::query!(
            "insert into texted_number (number, hour, count) values ($1, $2, 1)
             on conflict on constraint texted_number_hour do update set count = texted_number.count + 1
             where texted_number.count < $3",
            self.hash(service, phone).await?,
            hour,
            i32::try_from(most).unwrap_or(i32::MAX),
        );
        let taken = taken.execute(&service.db).await?.rows_affected() > 0;
        Ok(if taken { Ok(()) } else { Err(hour + HOUR) })
    }

    /// Takes back the count of a message that was not accepted. If the database fails, it counts all the same.
    pub(crate) async fn give_back(&self, service: &Service, phone: &str, hour: OffsetDateTime) {
        if let Err(error) = self.try_give_back(service, phone, hour).await {
            tracing::warn!(%error, "a text message counts for the limit of its number though it was not accepted");
        }
    }

    async fn try_give_back(&self, service: &Service, phone: &str, hour: OffsetDateTime) -> Result<(), Unexpected> {
        sqlx::query!(
            "update texted_number set count = count - 1 where number = $1 and hour = $2 and count > 0",
            self.hash(service, phone).await?,
            hour,
        )
        .execute(&service.db)
        .await?;
        Ok(())
    }

    async fn hash(&self, service: &Service, phone: &str) -> Result<Vec<u8>, Unexpected> {
        let read = || async {
            let key = sqlx::query_scalar!("select key from texted_number_key").fetch_one(&service.db).await?;
            Ok::<_, Unexpected>(Hmac::<Sha256>::new_from_slice(&key).expect("HMAC takes keys of any length"))
        };
        let mut mac = self.0.get_or_try_init(read).await?.clone();
        mac.update(phone.as_bytes());
        Ok(mac.finalize().into_bytes().to_vec())
    }
}

/// The beginning of the hour that this time is in.
pub(crate) fn hour(at: OffsetDateTime) -> OffsetDateTime {
    let start = at.unix_timestamp() - at.unix_timestamp().rem_euclid(3_600);
    OffsetDateTime::from_unix_timestamp(start).expect("it is earlier than a time")
}

/// Deletes the counts of hours that have passed.
pub(crate) async fn prune(service: Arc<Service>) -> Result<Next, Unexpected> {
    let pruned = sqlx::query!("delete from texted_number where hour < $1", hour(service.clock.now()));
    pruned.execute(&service.db).await?;
    Ok(Next::AfterPause)
}
