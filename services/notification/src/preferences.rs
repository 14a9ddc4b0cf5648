//! What a user wants to be told, by kind and channel.

use std::collections::HashMap;

use chassis::{Caller, Unexpected};
use contracts::souk::notification::v1::{
    GetPreferencesRequest, GetPreferencesResponse, Preference, UpdatePreferencesRequest, UpdatePreferencesResponse,
};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::error::Error;
use crate::ids::UserId;
use crate::kind::{Channel, Kind};
use crate::service::Service;

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
        r#"select kind as "kind: Kind", channel as "channel: Channel" from unwanted where user_id = $1"#,
        user_id
    );
    let unwanted: Vec<_> = rows.fetch_all(db).await?.into_iter().map(|row| (row.kind, row.channel)).collect();
    let preference = |(kind, channel): (Kind, Channel)| Preference {
        kind: kind.to_proto().into(),
        channel: channel.to_proto().into(),
        enabled: !unwanted.contains(&(kind, channel)),
    };
    Ok(all().map(preference).collect())
}

/// Deletes what users who were erased had set.
pub(crate) async fn erase(db: &mut PgConnection, users: &[UserId]) -> Result<(), Unexpected> {
    if !users.is_empty() {
        sqlx::query!("delete from unwanted where user_id = any($1)", users as &[UserId]).execute(db).await?;
    }
    Ok(())
}
