//! What a user wants to be told, by kind and channel.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use chassis::{Caller, Next, Unexpected};
use contracts::souk::notification::v1::{
    GetPreferencesRequest, GetPreferencesResponse, Preference, UpdatePreferencesRequest, UpdatePreferencesResponse,
};
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::error::Error;
use crate::ids::UserId;
use crate::kind::{Channel, Kind};
use crate::service::Service;

/// For how long an access token of a user who was erased may still be valid, and much longer.
const LATECOMERS: Duration = Duration::from_secs(3_600);

pub(crate) async fn get(
    service: &Service,
    caller: &Caller,
    _: GetPreferencesRequest,
) -> Result<GetPreferencesResponse, Error> {
    let mut db = service.db.acquire().await?;
    Ok(GetPreferencesResponse { preferences: read(&mut db, caller.user_id()?).await? })
}

pub(crate) async fn update(
    service: &Service,
    caller: &Caller,
    request: UpdatePreferencesRequest,
) -> Result<UpdatePreferencesResponse, Error> {
    let user_id = caller.user_id()?;
    for (index, preference) in request.preferences.iter().enumerate() {
        let (kind, channel) = (preference.kind(), preference.channel());
        let known = all().find(|(it, on)| it.to_proto() == kind && on.to_proto() == channel);
        let Some((kind, channel)) = known.filter(|(kind, _)| kind.is_of_order()) else {
            return Err(Error::PreferenceFixed { index });
        };
        if channel == Channel::Email && !preference.enabled && !request.end_order_mails {
            return Err(Error::ConfirmationRequired { kind: kind.name() });
        }
    }
    // Of two for one kind and channel, the last counts.
    let wanted: HashMap<_, _> = request.preferences.iter().map(|it| ((it.kind(), it.channel()), it.enabled)).collect();
    let named: Vec<_> = all().filter_map(|it| Some((it, *wanted.get(&(it.0.to_proto(), it.1.to_proto()))?))).collect();
    let columns = |is_enabled: bool| -> (Vec<_>, Vec<_>) {
        let chosen = named.iter().filter(|(_, enabled)| *enabled == is_enabled);
        chosen.map(|((kind, channel), _)| (kind.name(), channel.name())).unzip()
    };
    let mut tx = service.db.begin().await?;
    let (kinds, channels) = columns(true);
    sqlx::query!(
        "delete from unwanted using unnest($2::text[], $3::text[]) as wanted (kind, channel)
         where user_id = $1 and unwanted.kind = wanted.kind and unwanted.channel = wanted.channel",
        user_id,
        &kinds as &[&str],
        &channels as &[&str],
    )
    .execute(&mut *tx)
    .await?;
    let (kinds, channels) = columns(false);
    sqlx::query!(
        "insert into unwanted (user_id, kind, channel)
         select $1, kind, channel from unnest($2::text[], $3::text[]) as new (kind, channel) on conflict do nothing",
        user_id,
        &kinds as &[&str],
        &channels as &[&str],
    )
    .execute(&mut *tx)
    .await?;
    let preferences = read(&mut tx, user_id).await?;
    tx.commit().await?;
    Ok(UpdatePreferencesResponse { preferences })
}

/// Links are sent by e-mail only.
fn all() -> impl Iterator<Item = (Kind, Channel)> {
    let texts = Kind::ALL.into_iter().filter(|kind| kind.is_of_order()).map(|kind| (kind, Channel::Sms));
    Kind::ALL.into_iter().map(|kind| (kind, Channel::Email)).chain(texts)
}

async fn read(db: &mut PgConnection, user_id: Uuid) -> Result<Vec<Preference>, Unexpected> {
    let rows = sqlx::query!(
        r#"select kind as "kind: Kind", channel as "channel: Channel" from unwanted
           where user_id = $1 and kind = any($2)"#,
        user_id,
        &Kind::names(|_| true) as &[&str],
    );
    let unwanted: Vec<_> = rows.fetch_all(db).await?.into_iter().map(|row| (row.kind, row.channel)).collect();
    let preference = |(kind, channel): (Kind, Channel)| Preference {
        kind: kind.to_proto().into(),
        channel: channel.to_proto().into(),
        enabled: !unwanted.contains(&(kind, channel)),
    };
    Ok(all().map(preference).collect())
}

/// Records that users were erased, and deletes what they had set; the job [`erase_latecomers`] deletes what they set yet.
pub(crate) async fn erase(db: &mut PgConnection, users: &[UserId], now: OffsetDateTime) -> Result<(), Unexpected> {
    if !users.is_empty() {
        sqlx::query!(
            "with erased as (
               insert into erased_user (user_id, erased_at) select user_id, $2 from unnest($1::uuid[]) as user_id
               on conflict do nothing
             )
             delete from unwanted where user_id = any($1)",
            users as &[UserId],
            now,
        )
        .execute(db)
        .await?;
    }
    Ok(())
}

/// Deletes what users set with a token after they were erased.
pub(crate) async fn erase_latecomers(service: Arc<Service>) -> Result<Next, Unexpected> {
    sqlx::query!(
        "with late as (delete from unwanted using erased_user where unwanted.user_id = erased_user.user_id)
         delete from erased_user where erased_at < $1",
        service.clock.now() - LATECOMERS,
    )
    .execute(&service.db)
    .await?;
    Ok(Next::AfterPause)
}
