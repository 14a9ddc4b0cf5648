//! The projection, built again from the events and compared with what stands in the table.

use contracts::souk::order::v1::order_event::Event as Kind;
use contracts::souk::order::v1::{OrderEvent, OrderLine};
use prost::Message;
use sqlx::PgPool;
use time::OffsetDateTime;
use uuid::Uuid;

use chassis::{Owner, Unexpected};

use crate::error::Error;
use crate::event::Fact;
use crate::order::{Line, Order, State};

const BATCH: i64 = 500;

/// An order whose rows are not what its events say.
#[derive(Debug, Clone, PartialEq)]
pub struct Difference {
    pub order_id: Uuid,
    pub why: String,
}

/// How many orders were compared, and which differ.
pub async fn compare(db: &PgPool) -> Result<(u64, Vec<Difference>), Unexpected> {
    let (mut count, mut differences, mut after) = (0, Vec::new(), Uuid::nil());
    loop {
        let ids = sqlx::query_scalar!(
            r#"(select order_id as "order_id!" from "order" where order_id > $1 order by order_id limit $2)
               union
               (select distinct order_id from order_event where order_id > $1 order by order_id limit $2)
               order by 1 limit $2"#,
            after,
            BATCH,
        );
        let ids = ids.fetch_all(db).await?;
        let Some(last) = ids.last() else { return Ok((count, differences)) };
        after = *last;
        for order_id in ids {
            count += 1;
            if let Some(why) = compare_one(db, order_id).await? {
                differences.push(Difference { order_id, why });
            }
        }
    }
}

async fn compare_one(db: &PgPool, order_id: Uuid) -> Result<Option<String>, Unexpected> {
    // One snapshot, or an order that moves on meanwhile would differ from itself.
    let mut tx = db.begin_with("begin isolation level repeatable read read only").await?;
    let rows = sqlx::query!(
        "select version, payload, occurred_at from order_event where order_id = $1 order by version",
        order_id,
    );
    let rows = rows.fetch_all(&mut *tx).await?;
    let found = match Order::find(&mut tx, order_id, Owner::Anybody).await {
        Ok(Some(order)) => Some((order, Order::lines(&mut tx, order_id).await?)),
        Ok(None) => None,
        Err(Error::Chassis(chassis::Error::Unexpected(unexpected))) => return Err(unexpected),
        Err(other) => return Err(Unexpected::Broken(other.to_string())),
    };
    tx.commit().await?;
    let mut built = None;
    for (at, row) in rows.into_iter().enumerate() {
        if row.version != at as i64 + 1 {
            return Ok(Some(format!("version {} follows version {at}", row.version)));
        }
        let event = OrderEvent::decode(&*row.payload)?;
        built = match fold(built, order_id, event, row.occurred_at) {
            Ok(built) => Some(built),
            Err(why) => return Ok(Some(why)),
        };
    }
    Ok(match (built, found) {
        (None, _) => Some("it has no events".to_owned()),
        (Some(_), None) => Some("it has no row".to_owned()),
        (Some(built), Some(found)) if built != found => {
            Some(format!("the rows are {found:?}, the events say {built:?}"))
        }
        _ => None,
    })
}

type Built = (Order, Vec<Line>);

fn fold(built: Option<Built>, order_id: Uuid, event: OrderEvent, at: OffsetDateTime) -> Result<Built, String> {
    let kind = event.event.ok_or("an event says nothing")?;
    match (built, kind) {
        (None, Kind::OrderPlaced(placed)) => {
            let total = event.total.unwrap_or_default();
            let expires = placed.expire_time.unwrap_or_default();
            let expires_at = OffsetDateTime::from_unix_timestamp(expires.seconds).map_err(|error| error.to_string())?;
            let lines = placed.lines.into_iter().map(parse_line).collect::<Result<_, String>>()?;
            let order = Order {
                order_id,
                user_id: Uuid::parse_str(&event.user_id).map_err(|error| error.to_string())?,
                state: State::Pending,
                version: 1,
                currency: total.currency,
                total_minor: total.minor,
                payment_method: placed.payment_method,
                payment_id: None,
                captured: false,
                refunded_minor: 0,
                exit_reason: String::new(),
                carrier: String::new(),
                tracking_number: String::new(),
                expires_at: expires_at + time::Duration::nanoseconds(i64::from(expires.nanos)),
                created_at: at,
                updated_at: at,
            };
            Ok((order, lines))
        }
        (Some((mut order, lines)), kind) => {
            let fact = Fact::from_event(kind).ok_or("it was placed twice")?;
            order.apply(&fact, at).map_err(|error| error.to_string())?;
            Ok((order, lines))
        }
        (None, _) => Err("its first event is not that it was placed".to_owned()),
    }
}

fn parse_line(line: OrderLine) -> Result<Line, String> {
    Ok(Line {
        product_id: Uuid::parse_str(&line.product_id).map_err(|error| error.to_string())?,
        sku: line.sku,
        title: line.title,
        quantity: line.quantity,
        price_minor: line.unit_price.unwrap_or_default().minor,
    })
}
