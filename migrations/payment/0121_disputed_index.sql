-- no-transaction
-- Refunds that the provider refused because the charge is disputed.
create index concurrently refund_disputed on refund (payment_id)
    where failure_reason in ('charge_disputed', 'refund_disputed_payment', 'charge_for_pending_refund_disputed');
