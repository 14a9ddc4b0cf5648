//! Lets go of the money that is held.

use chassis::Unexpected;

use super::look_up::conclude;
use super::{Stopped, broken, intent_of};
use crate::Service;
use crate::goal::State;
use crate::payment::Payment;
use crate::stripe::Answer;

pub(super) async fn void(service: &Service, payment: &Payment) -> Result<(), Stopped> {
    match service.provider.cancel(&payment.key("cancel"), intent_of(payment)?).await? {
        Answer::Done(intent) | Answer::Elsewhere(intent) => conclude(service, payment, &intent).await,
        answer => Err(broken(payment, &format!("a void was refused: {answer:?}"))),
    }
}

/// The capture never happened and is not wanted any more: what is held goes back.
pub(super) async fn void_instead(service: &Service, payment: &Payment) -> Result<(), Stopped> {
    let mut tx = service.db.begin().await.map_err(Unexpected::from)?;
    let found = Payment::lock(&mut tx, payment.payment_id).await?;
    let Some(mut found) = found.filter(|found| found.lease == payment.lease) else { return Ok(()) };
    let (before, now) = (found.state, service.clock.now());
    found.step_to(State::Voiding)?;
    found.save(&mut tx, before, Some(now), Some(now + service.lease), now).await?;
    tx.commit().await.map_err(Unexpected::from)?;
    void(service, &found).await
}
