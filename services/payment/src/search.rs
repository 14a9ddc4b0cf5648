//! Search the payments of all customers, for operators.
//!
//! What is rare has an index: payments that are in progress, ended without money, differ, are disputed, have a failed refund or a
//! return that was not refunded in full. Otherwise payments are read from the newest on, until the page is full.

use chassis::rpc::page::Page;
use contracts::souk::payment::v1::{PaymentFinding, PaymentState, SearchPaymentsRequest, SearchPaymentsResponse};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::error::Error;
use crate::payment::{Payment, payments};
use crate::service::Service;

pub(crate) async fn search(service: &Service, request: SearchPaymentsRequest) -> Result<SearchPaymentsResponse, Error> {
    let filters = SearchPaymentsRequest { page_size: 0, page_token: String::new(), ..request.clone() };
    let page = Page::<Uuid>::parse(request.page_size, &request.page_token, &format!("payments {filters:?}"))?;
    let state = request.state();
    let state = (state != PaymentState::Unspecified).then(|| state.as_str_name().trim_start_matches("PAYMENT_STATE_"));

    let mut tx = service.db.begin().await?;
    // Filters that are not given must not shape the plan.
    sqlx::query!("set local plan_cache_mode = force_custom_plan").execute(&mut *tx).await?;
    // The ids of rare rows are read first, as an array: with `exists`, Postgres would look for them in each payment.
    let payments = payments!(
        "select"
            .."from payment
         where ($1::text is null or state = $1) and (not $2 or difference <> '') and (not $3 or disputed)
           and (not $4 or payment_id = any(array(select payment_id from refund where state = 'FAILED')))
           and (not $5 or payment_id = any(array(select payment_id from order_return where minor < asked_minor)))
           and ($6::uuid is null or payment_id < $6)
         order by payment_id desc limit $7",
        state,
        request.differing,
        request.disputed,
        request.refund_failed,
        request.return_short,
        page.after,
        page.limit(),
    );
    let mut payments = payments.fetch_all(&mut *tx).await?;
    let next_page_token = page.cut(&mut payments, |payment| payment.payment_id.0);
    let payments = findings(&mut tx, payments).await?;
    tx.commit().await?;
    Ok(SearchPaymentsResponse { payments, next_page_token })
}

/// Adds what is not part of a payment elsewhere.
async fn findings(db: &mut PgConnection, payments: Vec<Payment>) -> Result<Vec<PaymentFinding>, Error> {
    let ids: Vec<_> = payments.iter().map(|payment| payment.payment_id.0).collect();
    let rows = sqlx::query!("select payment_id, difference, disputed from payment where payment_id = any($1)", &ids);
    let rows = rows.fetch_all(db).await?;
    let finding = |payment: Payment| {
        let row = rows.iter().find(|row| row.payment_id == payment.payment_id.0);
        PaymentFinding {
            payment: Some(payment.to_proto()),
            difference: row.map(|row| row.difference.clone()).unwrap_or_default(),
            disputed: row.is_some_and(|row| row.disputed),
        }
    };
    Ok(payments.into_iter().map(finding).collect())
}
