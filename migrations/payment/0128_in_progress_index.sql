-- no-transaction
-- Payments in progress, which are few beside those that ended. The state is not in the key: it changes often, and versions of a
-- row with one key are cleaned up while others are inserted.
create index concurrently payment_in_progress on payment (payment_id)
    where state in ('PENDING', 'AUTHORIZING', 'AUTHORIZED', 'CAPTURING', 'VOIDING');
