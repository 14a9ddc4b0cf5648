-- no-transaction
-- Operators search orders by a state in which few are, newest first. Most are fulfilled, and those that are neither confirmed nor
-- have ended are in the index of what may expire.
create index concurrently order_by_state on "order" (state, order_id desc)
    where state in ('CONFIRMED', 'REJECTED', 'PAYMENT_FAILED', 'CANCELLED', 'EXPIRED');
