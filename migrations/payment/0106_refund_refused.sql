-- no-transaction
-- Those that operators should look at: there are few.
create index concurrently payment_refund_refused on payment (payment_id) where refund_refusal <> '';
