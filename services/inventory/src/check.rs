//! The invariants of stock, asked of the tables.

use std::collections::HashMap;

use chassis::{Finding, Unexpected};
use sqlx::PgPool;
use uuid::Uuid;

use crate::reservation::State;

/// I1: no SKU is oversold, its counters add up, and they are what the reservations say.
pub async fn check_stock(db: &PgPool) -> Result<Finding, Unexpected> {
    let rows = sqlx::query!(
        r#"select stock.sku, available, reserved, sold, received - written_off as "owned!", coalesce(held, 0) as "held!",
             coalesce(bought, 0) as "bought!"
           from stock left join
             (select sku, sum(quantity) filter (where state = 'HELD') as held,
                sum(quantity) filter (where state = 'SOLD') as bought
              from reservation_line join reservation using (order_id) group by sku) as said using (sku)"#,
    );
    let mut finding = Finding::new("I1", "SKUs");
    for row in rows.fetch_all(db).await? {
        let adds_up = row.available + row.reserved + row.sold == row.owned;
        let is_said = (row.reserved, row.sold) == (row.held, row.bought);
        let fine = row.available >= 0 && adds_up && is_said;
        finding.look((!fine).then(|| format!("{row:?}")));
    }
    Ok(finding)
}

/// I9: every reservation went only where it may, and is where its history ends.
pub async fn check_reservations(db: &PgPool) -> Result<Finding, Unexpected> {
    let rows = sqlx::query!(
        r#"select order_id, reservation.state as "state!", array_agg(history.state order by history.version) as "past!"
           from reservation join reservation_history as history using (order_id) group by order_id, reservation.state"#,
    );
    let mut finding = Finding::new("I9", "reservations");
    for row in rows.fetch_all(db).await? {
        let past = row.past.iter().map(|state| State::parse(state)).collect::<Result<Vec<_>, _>>()?;
        let legal = past.windows(2).all(|step| may_become(step[0], step[1]));
        let ends = row.past.last() == Some(&row.state);
        finding.look((!legal || !ends).then(|| format!("{}: {:?}, now {}", row.order_id, row.past, row.state)));
    }
    Ok(finding)
}

fn may_become(from: State, to: State) -> bool {
    matches!((from, to), (State::Held, State::Sold | State::Released) | (State::Sold, State::Returned))
}

/// How many events each reservation has recorded.
pub async fn versions(db: &PgPool) -> Result<HashMap<Uuid, i64>, Unexpected> {
    let rows = sqlx::query!("select order_id, version from reservation where version > 0").fetch_all(db).await?;
    Ok(rows.into_iter().map(|row| (row.order_id, row.version)).collect())
}

/// Which of these orders have their stock sold.
pub async fn sold(db: &PgPool, orders: &[Uuid]) -> Result<Vec<Uuid>, Unexpected> {
    let sold =
        sqlx::query_scalar!("select order_id from reservation where order_id = any($1) and state = 'SOLD'", orders,);
    Ok(sold.fetch_all(db).await?)
}
