-- no-transaction
-- Operators search orders by a state in which few end, newest first.
create index concurrently order_by_exit on "order" (state, order_id desc)
    where state in ('REJECTED', 'PAYMENT_FAILED', 'CANCELLED', 'EXPIRED');
