-- no-transaction
-- Few charges are disputed.
create index concurrently payment_disputed on payment (payment_id) where disputed;
