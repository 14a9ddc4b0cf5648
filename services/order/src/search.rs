//! Search the orders of all customers, for operators.
//!
//! Ids of orders begin with the time at which they were placed, so that a time range is a range of ids, too. By customer, product,
//! SKU or a state in which few are, an index has the newest orders; otherwise orders are read from the newest on, until the page is
//! full.

use chassis::parse_timestamp;
use chassis::rpc::page::Page;
use contracts::souk::order::v1::{SearchOrdersRequest, SearchOrdersResponse};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use crate::error::Error;
use crate::ids::OrderId;
use crate::list::read_page;
use crate::service::Service;
use crate::state::State;

/// An id and the time at which its order was placed are taken one after the other.
const SLACK: Duration = Duration::minutes(1);

pub(crate) async fn search(service: &Service, request: SearchOrdersRequest) -> Result<SearchOrdersResponse, Error> {
    let filters = SearchOrdersRequest { page_size: 0, page_token: String::new(), ..request.clone() };
    let page = Page::<Uuid>::parse(request.page_size, &request.page_token, &format!("orders {filters:?}"))?;
    let state = State::of_proto(request.state()).map(State::name);
    let user_id = optional_id("user_id", &request.user_id)?;
    let product_id = optional_id("product_id", &request.product_id)?;
    let sku = (!request.sku.is_empty()).then_some(request.sku);
    let from = time_of("placed_from", request.placed_from.as_ref().map(parse_timestamp))?;
    let before = time_of("placed_before", request.placed_before.as_ref().map(parse_timestamp))?;
    let first = from.map_or(Uuid::nil(), |from| id_at(from - SLACK));
    let last = before.and_then(|before| before.checked_add(SLACK)).map_or(Uuid::max(), id_at);
    let last = page.after.map_or(last, |after| last.min(after));

    let mut tx = service.db.begin().await?;
    // Filters that are not given must not shape the plan.
    sqlx::query!("set local plan_cache_mode = force_custom_plan").execute(&mut *tx).await?;
    let ids = if product_id.is_some() || sku.is_some() {
        let ids = sqlx::query_scalar!(
            r#"select line.order_id as "order_id: OrderId" from order_line as line join "order" using (order_id)
               where ($1::uuid is null or line.product_id = $1) and ($2::text is null or line.sku = $2)
                 and line.order_id >= $3 and line.order_id < $4
                 and ($5::text is null or state = $5) and ($6::uuid is null or user_id = $6)
                 and ($7::timestamptz is null or created_at >= $7) and ($8::timestamptz is null or created_at < $8)
                 and ($9::bigint is null or total_minor >= $9) and ($10::bigint is null or total_minor <= $10)
               order by line.order_id desc limit $11"#,
            product_id,
            sku,
            first,
            last,
            state,
            user_id,
            from,
            before,
            request.min_total_minor,
            request.max_total_minor,
            page.limit(),
        );
        ids.fetch_all(&mut *tx).await?
    } else {
        let ids = sqlx::query_scalar!(
            r#"select order_id as "order_id: OrderId" from "order"
               where order_id >= $1 and order_id < $2
                 and ($3::text is null or state = $3) and ($4::uuid is null or user_id = $4)
                 and ($5::timestamptz is null or created_at >= $5) and ($6::timestamptz is null or created_at < $6)
                 and ($7::bigint is null or total_minor >= $7) and ($8::bigint is null or total_minor <= $8)
               order by order_id desc limit $9"#,
            first,
            last,
            state,
            user_id,
            from,
            before,
            request.min_total_minor,
            request.max_total_minor,
            page.limit(),
        );
        ids.fetch_all(&mut *tx).await?
    };
    let (orders, next_page_token) = read_page(&mut tx, &page, ids).await?;
    tx.commit().await?;
    Ok(SearchOrdersResponse { orders, next_page_token })
}

fn optional_id(field: &str, text: &str) -> Result<Option<Uuid>, Error> {
    let parse = |text| Uuid::parse_str(text).map_err(|_| chassis::Error::field(field, "must be a UUID").into());
    (!text.is_empty()).then_some(text).map(parse).transpose()
}

/// Whether a time that was given is one.
fn time_of(field: &str, parsed: Option<Option<OffsetDateTime>>) -> Result<Option<OffsetDateTime>, Error> {
    let refuse = || chassis::Error::field(field, "must be a time from the year 1970 to 9999").into();
    parsed.map(|time| time.ok_or_else(refuse)).transpose()
}

/// The first id of this millisecond.
fn id_at(at: OffsetDateTime) -> Uuid {
    let milliseconds = u128::try_from(at.unix_timestamp_nanos() / 1_000_000).unwrap_or_default();
    Uuid::from_u128(milliseconds << 80)
}
