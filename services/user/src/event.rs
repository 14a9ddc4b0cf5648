//! The events of accounts.

use chassis::Unexpected;
use chassis::event::outbox::{self, Event as NewEvent};
use contracts::event::Event as _;
use contracts::souk::user::v1::UserEvent;
use contracts::souk::user::v1::user_event::Event;
use prost::Message;
use sqlx::PgConnection;

use crate::account::Account;
use crate::service::Service;

/// Appends an event to the outbox, and counts it: the account is locked, and saved afterwards.
pub(crate) async fn publish(
    service: &Service,
    db: &mut PgConnection,
    account: &mut Account,
    event: Event,
    actor: String,
) -> Result<(), Unexpected> {
    account.event_version += 1;
    let event_type = event.event_type();
    let payload = UserEvent { user_id: account.user_id.to_string(), event: Some(event) };
    let event = NewEvent {
        event_id: service.clock.new_id(),
        topic: Event::TOPIC,
        key: account.user_id.0,
        version: account.event_version,
        event_type,
        payload: payload.encode_to_vec(),
        actor,
        causation_id: None,
        occurred_at: service.clock.now(),
    };
    Ok(outbox::append(db, &event).await?)
}
