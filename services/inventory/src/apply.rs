//! Applies updates of orders to their reservations: lock reservations and stock, decide one by one, record all.
//!
//! Updates that share a transaction cost the same few statements whatever their number. A popular SKU is one row, and its
//! lock is held until the commit is on disk: so stock is locked last, and what the orders do to a SKU is summed up and written
//! once.
//!
//! Every transaction locks reservations before stock, and each in the order of ids and SKUs, so that no two transactions wait
//! for each other in a circle.

use std::collections::{BTreeSet, HashMap};

use chassis::event::HandleError;
use sqlx::PgConnection;
use tracing::Span;
use uuid::Uuid;

use crate::ids::{OrderId, UserId};
use crate::record::Changes;
use crate::reservation::{Decision, OrderPhase, Reservation, Step, decide};
use crate::service::Service;
use crate::stock::{Line, LockedStock, units_held};
use crate::take_back::CustomerReturn;

/// The state of an order at one of its versions, from an event or from a response of the order service.
pub(crate) struct OrderUpdate {
    pub(crate) order_id: OrderId,
    /// Absent in responses of the order service, and in events of the first releases.
    pub(crate) user_id: Option<UserId>,
    pub(crate) version: i64,
    pub(crate) phase: OrderPhase,
    /// The lines of a placed order; empty otherwise.
    pub(crate) lines: Vec<Line>,
    /// What came back.
    pub(crate) returned: Option<CustomerReturn>,
    /// The id of the event; none for a response.
    pub(crate) event_id: Option<Uuid>,
    /// The trace of the event.
    pub(crate) span: Span,
}

pub(crate) async fn apply(
    service: &Service,
    tx: &mut PgConnection,
    updates: &[OrderUpdate],
) -> Result<(), HandleError> {
    let order_ids: BTreeSet<_> = updates.iter().map(|update| update.order_id).collect();
    let mut reservations = Reservation::lock_all(tx, &Vec::from_iter(order_ids)).await?;
    let wanted = updates.iter().flat_map(|update| &update.lines);
    let lines = reservations.values().flat_map(|reservation| &reservation.lines).chain(wanted);
    let skus: BTreeSet<_> = lines.map(|line| line.sku.clone()).collect();
    let skus = Vec::from_iter(skus);
    let stock = LockedStock::lock(tx, &skus).await?;
    let held = match service.max_units {
        Some(_) => {
            let user_ids: BTreeSet<_> = updates.iter().filter_map(|update| update.user_id).collect();
            units_held(tx, &Vec::from_iter(user_ids), &skus).await?
        }
        None => HashMap::new(),
    };
    let mut changes = Changes::new(service, stock, held);
    for update in updates {
        let _span = update.span.enter();
        let reservation = reservations.entry(update.order_id).or_default();
        let known = reservation.state.map(|state| (state, reservation.order_version));
        match decide(known, update.phase, update.version) {
            Decision::Ignore => {}
            Decision::Contradiction => {
                let (phase, state) = (update.phase, reservation.state);
                return Err(HandleError::Poisoned(format!(
                    "an order is not {phase:?} while its reservation is {state:?}"
                )));
            }
            Decision::Record(Step::TakeBack)
                if update.returned.as_ref().is_none_or(|returned| !reservation.has(&returned.items)) =>
            {
                return Err(HandleError::Poisoned("more units come back than the order has".to_owned()));
            }
            Decision::Record(step) => changes.record(update, reservation, step),
        }
    }
    Ok(changes.save(tx, &reservations).await?)
}
