//! Payments and their ledger, for those whose they are.

use chassis::rpc::page::Page;
use chassis::{Caller, timestamp};
use contracts::souk::payment::v1::{
    GetLedgerRequest, GetLedgerResponse, GetPaymentRequest, GetPaymentResponse, LedgerTransfer, ListPaymentsRequest,
    ListPaymentsResponse,
};
use contracts::souk::r#type::v1::Money;
use uuid::Uuid;

use crate::Service;
use crate::error::Error;
use crate::payment::Row;
use crate::refund::Refund;

/// How many refunds are shown with a payment.
const MOST_REFUNDS: i64 = 100;
/// How many movements are shown of a payment: those of some hundred refunds.
const MOST_TRANSFERS: i64 = 1_000;

pub(crate) fn parse_id(text: &str) -> Result<Uuid, Error> {
    Uuid::parse_str(text).map_err(|_| Error::PaymentNotFound)
}

pub(crate) async fn get(
    service: &Service,
    caller: &Caller,
    request: GetPaymentRequest,
) -> Result<GetPaymentResponse, Error> {
    let row = sqlx::query_as!(
        Row,
        "select payment_id, order_id, user_id, goal, state, currency, amount_minor, payment_method, intent_id,
           captured_minor, refunded_minor, refund_pending_minor, failure_reason, version, cause_id, lease, call, unsent,
           refund_refusal, attempts, created_at, updated_at
         from payment where payment_id = $1 and ($2::uuid is null or user_id = $2)",
        parse_id(&request.payment_id)?,
        caller.owner()?.filter(),
    );
    let payment = row.fetch_optional(&service.db).await?.ok_or(Error::PaymentNotFound)?.into_payment()?;
    let refunds = Refund::newest_of(&service.db, payment.payment_id, MOST_REFUNDS).await?;
    let refunds = refunds.iter().map(|refund| refund.to_proto(&payment.currency)).collect();
    Ok(GetPaymentResponse { payment: Some(payment.to_proto()), refunds })
}

pub(crate) async fn list(
    service: &Service,
    caller: &Caller,
    request: ListPaymentsRequest,
) -> Result<ListPaymentsResponse, Error> {
    let order_id = Some(request.order_id).filter(|id| !id.is_empty()).map(|id| parse_id(&id)).transpose()?;
    // An operator asks about anybody's order, and otherwise sees what is their own.
    let owner = match order_id {
        Some(_) => caller.owner()?.filter(),
        None => Some(caller.user_id()?),
    };
    let page =
        Page::<Uuid>::parse(request.page_size, &request.page_token, &format!("payments {owner:?} {order_id:?}"))?;
    let mut rows = sqlx::query_as!(
        Row,
        "select payment_id, order_id, user_id, goal, state, currency, amount_minor, payment_method, intent_id,
           captured_minor, refunded_minor, refund_pending_minor, failure_reason, version, cause_id, lease, call, unsent,
           refund_refusal, attempts, created_at, updated_at
         from payment
         where ($1::uuid is null or user_id = $1) and ($2::uuid is null or order_id = $2)
           and ($3::uuid is null or payment_id < $3)
         order by payment_id desc limit $4",
        owner,
        order_id,
        page.after,
        page.limit(),
    )
    .fetch_all(&service.db)
    .await?;
    let next_page_token = page.cut(&mut rows, |row| row.payment_id);
    let payments = rows.into_iter().map(|row| Ok(row.into_payment()?.to_proto()));
    Ok(ListPaymentsResponse { payments: payments.collect::<Result<_, Error>>()?, next_page_token })
}

pub(crate) async fn get_ledger(service: &Service, request: GetLedgerRequest) -> Result<GetLedgerResponse, Error> {
    let payment_id = parse_id(&request.payment_id)?;
    let exists = sqlx::query_scalar!("select payment_id from payment where payment_id = $1", payment_id);
    exists.fetch_optional(&service.db).await?.ok_or(Error::PaymentNotFound)?;
    let rows = sqlx::query!(
        "select debit_account, credit_account, currency, minor, kind, ref as reference, created_at
         from ledger_transfer where payment_id = $1 order by id limit $2",
        payment_id,
        MOST_TRANSFERS,
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
