//! Builds the projection again from the events, in temporary tables and with the statements that write the live tables, and
//! compares the two.

use std::collections::BTreeMap;

use contracts::souk::order::v1::order_event::Event;
use contracts::souk::order::v1::{OrderEvent, OrderLine};
use prost::Message;
use sqlx::{Connection, PgConnection, PgPool};
use time::OffsetDateTime;
use uuid::Uuid;

use chassis::Unexpected;
use chassis::check::Range;

use crate::Config;
use crate::fact::Fact;
use crate::ids::{OrderId, ProductId, UserId};
use crate::order::{Line, Order};
use crate::parcel;
use crate::state::State;

const MAX_ORDERS: i64 = 500;

/// Temporary tables hide the live ones of the same name, so that the same statements write to them.
const TEMPORARY: [&str; 4] = [
    r#"create temporary table "order" (like public."order") on commit delete rows"#,
    "create temporary table order_line (like public.order_line) on commit delete rows",
    "create temporary table order_shipment (like public.order_shipment) on commit delete rows",
    "create temporary table order_shipping_address (like public.order_shipping_address) on commit delete rows",
];

/// Compares whole rows, so that no column is forgotten. Not checked at compile time, because only such a session has both tables.
const DIFFERENCES: &str = r#"
    with live as (
      select order_id, to_jsonb(it) || jsonb_build_object('lines',
        (select jsonb_agg(to_jsonb(one) order by one.line) from public.order_line as one where one.order_id = it.order_id),
        'parcels',
        (select jsonb_agg(to_jsonb(one) order by one.number) from public.order_shipment as one where one.order_id = it.order_id)
      ) as said
      from public."order" as it where order_id = any($1)
    ), built as (
      select order_id, to_jsonb(it) || jsonb_build_object('lines',
        (select jsonb_agg(to_jsonb(one) order by one.line) from pg_temp.order_line as one where one.order_id = it.order_id),
        'parcels',
        (select jsonb_agg(to_jsonb(one) order by one.number) from pg_temp.order_shipment as one where one.order_id = it.order_id)
      ) as said
      from pg_temp."order" as it
    )
    select order_id, case
      when built.said is null then 'it has no events'
      when live.said is null then 'it has no row'
      else (select string_agg(format('%s is %s, the events say %s', key, live.said -> key, built.said -> key), '; ')
            from jsonb_object_keys(built.said) as key where live.said -> key is distinct from built.said -> key)
      end
    from live full join built using (order_id) where live.said is distinct from built.said"#;

/// An order whose rows differ from its events.
#[derive(Debug, Clone, PartialEq)]
pub struct Difference {
    pub order_id: Uuid,
    pub why: String,
}

/// Builds the projection again, and returns the number of orders. `differ` is called for each difference.
pub async fn rebuild(config: &Config, differ: impl FnMut(Difference)) -> Result<u64, String> {
    let db = config.foundation.pool(roster::ORDER)?;
    compare(&db, Range::ALL, differ).await.map_err(|error| error.to_string())
}

/// Builds the orders of a range again, and returns their number. `differ` is called for each that differs from its row.
pub(crate) async fn compare(db: &PgPool, range: Range, mut differ: impl FnMut(Difference)) -> Result<u64, Unexpected> {
    // A session of its own, closed afterwards: in it, the names of tables mean the temporary ones.
    let mut session = PgConnection::connect_with(&db.connect_options()).await?;
    for table in TEMPORARY {
        sqlx::query(table).execute(&mut session).await?;
    }
    let (mut count, mut after) = (0, range.after);
    loop {
        let ids = sqlx::query_scalar!(
            r#"(select order_id as "order_id!" from "order" where order_id > $1 and order_id <= $2
                order by order_id limit $3)
               union
               (select distinct order_id from order_event where order_id > $1 and order_id <= $2
                order by order_id limit $3)
               order by 1 limit $3"#,
            after,
            range.last,
            MAX_ORDERS,
        );
        let ids = ids.fetch_all(db).await?;
        let Some(last) = ids.last() else { break };
        after = *last;
        count += ids.len() as u64;
        rebuild_batch(&mut session, &ids).await?.into_iter().for_each(&mut differ);
    }
    session.close().await?;
    Ok(count)
}

/// Builds some orders from their events and compares the live ones with them.
async fn rebuild_batch(session: &mut PgConnection, ids: &[Uuid]) -> Result<Vec<Difference>, Unexpected> {
    // One snapshot: an order that changes meanwhile would differ from itself. Read only: Postgres allows changes of temporary
    // tables only.
    let mut tx = session.begin_with("begin isolation level repeatable read read only").await?;
    let rows = sqlx::query!(
        "select order_id, version, payload, occurred_at from order_event where order_id = any($1)
         order by order_id, version",
        ids,
    );
    let (mut built, mut broken) = (BTreeMap::<Uuid, Order>::new(), BTreeMap::<Uuid, String>::new());
    for row in rows.fetch_all(&mut *tx).await? {
        let order_id = row.order_id;
        if broken.contains_key(&order_id) {
            continue;
        }
        let before = built.remove(&order_id);
        let at = before.as_ref().map_or(0, |built| built.version);
        let folded = if row.version == at + 1 {
            let event = OrderEvent::decode(&*row.payload).map_err(|error| error.to_string());
            event.and_then(|event| fold(before, order_id, event, row.occurred_at))
        } else {
            Err(format!("version {} follows version {at}", row.version))
        };
        match folded {
            Ok(after) => drop(built.insert(order_id, after)),
            Err(why) => drop(broken.insert(order_id, why)),
        }
    }
    for order in built.values() {
        order.insert(&mut tx, None).await?;
    }
    let orders: Vec<_> = built.values().collect();
    Order::save_all(&mut tx, &orders).await?;
    parcel::save(&mut tx, orders.into_iter().filter(|order| order.has_parcels())).await?;
    let whole: Vec<_> = ids.iter().filter(|id| !broken.contains_key(id)).copied().collect();
    let differ = sqlx::query_as(DIFFERENCES).bind(whole).fetch_all(&mut *tx).await?;
    tx.rollback().await?;
    Ok(broken.into_iter().chain(differ).map(|(order_id, why)| Difference { order_id, why }).collect())
}

/// An order after one more of its events.
pub(crate) fn fold(
    built: Option<Order>,
    order_id: Uuid,
    event: OrderEvent,
    at: OffsetDateTime,
) -> Result<Order, String> {
    let (total, user_id) = (event.total.unwrap_or_default(), event.user_id);
    match (built, event.event.ok_or("an event has no payload")?) {
        (None, Event::OrderPlaced(placed)) => {
            let expires = placed.expire_time.unwrap_or_default();
            let expires_at = OffsetDateTime::from_unix_timestamp(expires.seconds).map_err(|error| error.to_string())?;
            let lines = placed.lines.into_iter().map(parse_line).collect::<Result<_, String>>()?;
            Ok(Order {
                order_id: OrderId::new(order_id),
                user_id: UserId::parse(&user_id).ok_or("its user_id is not a UUID")?,
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
                returns: 0,
                expires_at: expires_at + time::Duration::nanoseconds(i64::from(expires.nanos)),
                created_at: at,
                updated_at: at,
                lines,
                shipments: vec![],
            })
        }
        (Some(mut order), event) => {
            let fact = Fact::from_event(event).ok_or("it was placed twice")?;
            order.apply(&fact, at).map_err(|error| error.to_string())?;
            Ok(order)
        }
        (None, _) => Err("its first event is not OrderPlaced".to_owned()),
    }
}

fn parse_line(line: OrderLine) -> Result<Line, String> {
    Ok(Line {
        product_id: ProductId::parse(&line.product_id).ok_or("its product_id is not a UUID")?,
        sku: line.sku,
        title: line.title,
        quantity: line.quantity,
        price_minor: line.unit_price.unwrap_or_default().minor,
        fulfilled: 0,
        returned: 0,
    })
}
