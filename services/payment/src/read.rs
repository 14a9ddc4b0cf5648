//! Read payments and their ledger.

use chassis::rpc::page::Page;
use chassis::{Caller, timestamp};
use contracts::souk::payment::v1::{
    GetLedgerRequest, GetLedgerResponse, GetPaymentRequest, GetPaymentResponse, LedgerTransfer, ListPaymentsRequest,
    ListPaymentsResponse, PaymentReturn,
};
use contracts::souk::r#type::v1::Money;
use uuid::Uuid;

use crate::error::Error;
use crate::ids::PaymentId;
use crate::payment::{Payment, payments};
use crate::refund::Refund;
use crate::service::Service;

/// How many refunds are shown with a payment.
const MAX_REFUNDS: i64 = 100;
/// How many returns are shown with a payment: as many as an order may have.
const MAX_RETURNS: i64 = 100;
/// How many movements of a payment are shown: enough for some hundred refunds.
const MAX_TRANSFERS: i64 = 1_000;

pub(crate) async fn get(
    service: &Service,
    caller: &Caller,
    request: GetPaymentRequest,
) -> Result<GetPaymentResponse, Error> {
    let owner = caller.owner()?.filter();
    let payment = payments!(
        "select".."from payment where payment_id = $1 and ($2::uuid is null or user_id = $2)",
        PaymentId::parse(&request.payment_id).ok_or(Error::PaymentNotFound)?.0,
        owner,
    );
    let payment = payment.fetch_optional(&service.db).await?.ok_or(Error::PaymentNotFound)?;
    let refunds = Refund::newest_of(&service.db, payment.payment_id, MAX_REFUNDS).await?;
    let refunds = refunds.iter().map(|refund| refund.to_proto(&payment.currency)).collect();
    // For operators: what was not refunded in full is theirs to look at.
    let returns = if owner.is_none() { returns_of(service, &payment).await? } else { vec![] };
    Ok(GetPaymentResponse { payment: Some(payment.to_proto()), refunds, returns })
}

/// What came back of its order, the first return first.
async fn returns_of(service: &Service, payment: &Payment) -> Result<Vec<PaymentReturn>, Error> {
    let rows = sqlx::query!(
        "select number, asked_minor, minor, refund_id, created_at from order_return
         where payment_id = $1 order by number limit $2",
        payment.payment_id.0,
        MAX_RETURNS,
    );
    let returns = rows.fetch_all(&service.db).await?.into_iter().map(|row| PaymentReturn {
        return_number: row.number,
        price: Some(payment.money(row.asked_minor)),
        refund_minor: row.minor,
        refund_id: row.refund_id.map(|id| id.to_string()).unwrap_or_default(),
        create_time: Some(timestamp(row.created_at)),
    });
    Ok(returns.collect())
}

pub(crate) async fn list(
    service: &Service,
    caller: &Caller,
    request: ListPaymentsRequest,
) -> Result<ListPaymentsResponse, Error> {
    let order_id = Some(request.order_id).filter(|id| !id.is_empty()).map(|id| Uuid::parse_str(&id)).transpose();
    let order_id = order_id.map_err(|_| Error::PaymentNotFound)?;
    // With an order_id an operator sees any order's payments, and otherwise their own.
    let owner = match order_id {
        Some(_) => caller.owner()?.filter(),
        None => Some(caller.user_id()?),
    };
    let page =
        Page::<Uuid>::parse(request.page_size, &request.page_token, &format!("payments {owner:?} {order_id:?}"))?;
    let payments = payments!(
        "select"
            .."from payment
         where ($1::uuid is null or user_id = $1) and ($2::uuid is null or order_id = $2)
           and ($3::uuid is null or payment_id < $3)
         order by payment_id desc limit $4",
        owner,
        order_id,
        page.after,
        page.limit(),
    );
    let mut payments = payments.fetch_all(&service.db).await?;
    let next_page_token = page.cut(&mut payments, |payment| payment.payment_id.0);
    Ok(ListPaymentsResponse { payments: payments.iter().map(Payment::to_proto).collect(), next_page_token })
}

pub(crate) async fn get_ledger(service: &Service, request: GetLedgerRequest) -> Result<GetLedgerResponse, Error> {
    let payment_id = PaymentId::parse(&request.payment_id).ok_or(Error::PaymentNotFound)?.0;
    let exists = sqlx::query_scalar!("select payment_id from payment where payment_id = $1", payment_id);
    exists.fetch_optional(&service.db).await?.ok_or(Error::PaymentNotFound)?;
    let rows = sqlx::query!(
        "select debit_account, credit_account, currency, minor, kind, ref as reference, created_at
         from ledger_transfer where payment_id = $1 order by id limit $2",
        payment_id,
        MAX_TRANSFERS,
    );
    let transfers = rows.fetch_all(&service.db).await?.into_iter().map(|row| LedgerTransfer {
        debit_account: row.debit_account,
        credit_account: row.credit_account,
        amount: Some(Money::new(row.currency, row.minor)),
        kind: row.kind,
        reference: row.reference,
        create_time: Some(timestamp(row.created_at)),
    });
    Ok(GetLedgerResponse { transfers: transfers.collect() })
}
