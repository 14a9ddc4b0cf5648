//! The events of accounts.

use chassis::Unexpected;
use chassis::event::outbox::{self, Event as NewEvent};
use contracts::event::Event as _;
use contracts::souk::user::v1::UserEvent;
use contracts::souk::user::v1::user_event::Event;
use prost::Message;
use sqlx::PgConnection;

use crate::account::UserId;
use crate::service::Service;

/// Appends an event of a locked account to the outbox, and returns its version.
pub(crate) async fn publish(
    service: &Service,
    db: &mut PgConnection,
    user_id: UserId,
    event: Event,
    actor: String,
) -> Result<i64, Unexpected> {
    let version = sqlx::query_scalar!(
        "update account set event_version = event_version + 1 where user_id = $1 returning event_version",
        user_id as UserId,
    );
    let version = version.fetch_one(&mut *db).await?;
    let event_type = event.event_type();
    let payload = UserEvent { user_id: user_id.to_string(), event: Some(event) };
    let event = NewEvent {
        event_id: service.clock.new_id(),
        topic: Event::TOPIC,
        key: user_id.0,
        version,
        event_type,
        payload: payload.encode_to_vec(),
        actor,
        causation_id: None,
        occurred_at: service.clock.now(),
    };
    outbox::append(db, &event).await?;
    Ok(version)
}
