//! Sets the goals of payments. No calls to the provider here.

use std::collections::BTreeMap;

use chassis::{Clock, Unexpected};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::ids::OrderId;
use crate::state::Goal;

/// The goal that one version of an order sets for its payment.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) order_id: OrderId,
    pub(crate) version: i64,
    pub(crate) goal: Goal,
    /// The event that sets it; nil if the state was read from the order service.
    pub(crate) cause: Uuid,
    /// The payment that it creates, if it does.
    pub(crate) begins: Option<NewPayment>,
}

#[derive(Debug)]
pub(crate) struct NewPayment {
    pub(crate) user_id: Uuid,
    pub(crate) currency: String,
    pub(crate) minor: i64,
    pub(crate) payment_method: String,
}

/// The last goal of each order. RELEASED is never replaced.
fn last_of_each(wanted: Vec<Wanted>) -> BTreeMap<OrderId, Wanted> {
    let mut last = BTreeMap::<OrderId, Wanted>::new();
    for next in wanted {
        match last.remove(&next.order_id) {
            Some(before) if before.goal == Goal::Released || before.version >= next.version => {
                last.insert(before.order_id, before);
            }
            before => {
                let begins = before.and_then(|before| before.begins).or(next.begins);
                last.insert(next.order_id, Wanted { begins, ..next });
            }
        }
    }
    last
}

/// Sets the goals of payments, unless a later version of the order set one already. New payments are inserted; without a payment
/// nothing is set. Rows are locked in the order of order ids, so that two transactions cannot deadlock.
pub(crate) async fn set_goals(tx: &mut PgConnection, clock: &Clock, wanted: Vec<Wanted>) -> Result<(), Unexpected> {
    let wanted = last_of_each(wanted);
    let new: Vec<_> = wanted.values().filter_map(|it| Some((it, it.begins.as_ref()?))).collect();
    let changed: Vec<_> = wanted.values().filter(|it| it.goal != Goal::Authorized).collect();
    sqlx::query!(
        "with begun as (
           insert into payment
             (payment_id, order_id, user_id, goal, state, currency, amount_minor, payment_method, captured_minor,
              refunded_minor, refund_pending_minor, failure_reason, version, order_version, cause_id, wanted_at, due_at,
              attempts, created_at, updated_at)
           select payment_id, order_id, user_id, goal, 'PENDING', currency, minor, payment_method, 0, 0, 0, '', 0,
             order_version, cause_id, $1, $1, 0, $1, $1
           from unnest($2::uuid[], $3::uuid[], $4::uuid[], $5::text[], $6::text[], $7::bigint[], $8::text[], $9::bigint[],
             $10::uuid[])
             as new (payment_id, order_id, user_id, goal, currency, minor, payment_method, order_version, cause_id)
           on conflict on constraint payment_order do nothing returning payment_id
         ), history as (
           insert into payment_history (payment_id, state, at) select payment_id, 'PENDING', $1 from begun
         ), wanted as (
           select payment_id, wanted.goal, wanted.order_version, wanted.cause_id
           from (select * from unnest($11::uuid[], $12::text[], $13::bigint[], $14::uuid[]) limit cardinality($11))
             as wanted (order_id, goal, order_version, cause_id)
             join payment using (order_id)
           order by order_id for no key update of payment
         )
         update payment set goal = wanted.goal, cause_id = wanted.cause_id, wanted_at = $1, due_at = $1, attempts = 0,
           order_version = wanted.order_version
         from wanted
         where payment.payment_id = wanted.payment_id and payment.goal <> 'RELEASED' and payment.goal <> wanted.goal
           and payment.order_version < wanted.order_version",
        clock.now(),
        &new.iter().map(|_| clock.new_id()).collect::<Vec<_>>(),
        &new.iter().map(|(it, _)| it.order_id.0).collect::<Vec<_>>(),
        &new.iter().map(|(_, new)| new.user_id).collect::<Vec<_>>(),
        &new.iter().map(|(it, _)| it.goal.name()).collect::<Vec<_>>() as &[&str],
        &new.iter().map(|(_, new)| new.currency.clone()).collect::<Vec<_>>(),
        &new.iter().map(|(_, new)| new.minor).collect::<Vec<_>>(),
        &new.iter().map(|(_, new)| new.payment_method.clone()).collect::<Vec<_>>(),
        &new.iter().map(|(it, _)| it.version).collect::<Vec<_>>(),
        &new.iter().map(|(it, _)| it.cause).collect::<Vec<_>>(),
        &changed.iter().map(|it| it.order_id.0).collect::<Vec<_>>(),
        &changed.iter().map(|it| it.goal.name()).collect::<Vec<_>>() as &[&str],
        &changed.iter().map(|it| it.version).collect::<Vec<_>>(),
        &changed.iter().map(|it| it.cause).collect::<Vec<_>>(),
    )
    .execute(tx)
    .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(order: u128, version: i64, goal: Goal) -> Wanted {
        let begins = (goal == Goal::Authorized).then(|| NewPayment {
            user_id: Uuid::nil(),
            currency: "EUR".to_owned(),
            minor: 2_500,
            payment_method: "pm_card_visa".to_owned(),
        });
        Wanted { order_id: OrderId::new(Uuid::from_u128(order)), version, goal, cause: Uuid::nil(), begins }
    }

    #[test]
    fn of_several_goals_of_one_order_the_last_counts_and_a_release_is_the_last() {
        let last = last_of_each(vec![
            wanted(1, 2, Goal::Authorized),
            wanted(2, 3, Goal::Captured),
            wanted(1, 3, Goal::Captured),
            wanted(1, 4, Goal::Released),
            wanted(1, 5, Goal::Captured),
            wanted(2, 2, Goal::Authorized),
        ]);
        let found: Vec<_> = last.values().map(|it| (it.version, it.goal, it.begins.is_some())).collect();
        assert_eq!(found, [(4, Goal::Released, true), (3, Goal::Captured, false)]);
    }
}
