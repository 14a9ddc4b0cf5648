-- no-transaction
-- Refunds that the provider refused, or that failed later: operators look at them.
create index concurrently refund_failed on refund (payment_id) where state = 'FAILED';
