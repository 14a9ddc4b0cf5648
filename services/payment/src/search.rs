//! Search the payments of all customers, for operators.
//!
//! Few payments differ or are disputed, and have indexes of their own. Otherwise payments are read from the newest on, until the
//! page is full.

use chassis::rpc::page::Page;
use contracts::souk::payment::v1::{PaymentFinding, PaymentState, SearchPaymentsRequest, SearchPaymentsResponse};
use uuid::Uuid;

use crate::error::Error;
use crate::payment::{Payment, payments};
use crate::service::Service;

pub(crate) async fn search(service: &Service, request: SearchPaymentsRequest) -> Result<SearchPaymentsResponse, Error> {
    let (state, differing, disputed) = (request.state(), request.differing, request.disputed);
    let list = format!("payments {state:?} {differing} {disputed}");
    let page = Page::<Uuid>::parse(request.page_size, &request.page_token, &list)?;
    let state = (state != PaymentState::Unspecified).then(|| state.as_str_name().trim_start_matches("PAYMENT_STATE_"));
    let payments = payments!(
        "select"
            .."from payment
         where ($1::text is null or state = $1) and (not $2 or difference <> '')
           and (not $3 or refund_refusal = 'DISPUTED' or exists (
             select from refund where refund.payment_id = payment.payment_id
               and refund.failure_reason in ('charge_disputed', 'refund_disputed_payment', 'charge_for_pending_refund_disputed')))
           and ($4::uuid is null or payment_id < $4)
         order by payment_id desc limit $5",
        state,
        differing,
        disputed,
        page.after,
        page.limit(),
    );
    let mut payments = payments.fetch_all(&service.db).await?;
    let next_page_token = page.cut(&mut payments, |payment| payment.payment_id.0);
    let payments = findings(service, payments).await?;
    Ok(SearchPaymentsResponse { payments, next_page_token })
}

/// Adds what is not part of a payment elsewhere.
async fn findings(service: &Service, payments: Vec<Payment>) -> Result<Vec<PaymentFinding>, Error> {
    let ids: Vec<_> = payments.iter().map(|payment| payment.payment_id.0).collect();
    let rows = sqlx::query!(
        r#"select payment_id, difference, refund_refusal = 'DISPUTED' or exists (
             select from refund where refund.payment_id = payment.payment_id
               and refund.failure_reason in ('charge_disputed', 'refund_disputed_payment', 'charge_for_pending_refund_disputed'))
             as "disputed!"
           from payment where payment_id = any($1)"#,
        &ids,
    );
    let rows = rows.fetch_all(&service.db).await?;
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
