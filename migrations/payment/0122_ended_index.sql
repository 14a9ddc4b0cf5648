-- no-transaction
-- Payments that ended without money, newest first. Others change their state too often to be in it, or are most of all.
create index concurrently payment_ended on payment (state, payment_id desc) where state in ('VOIDED', 'DECLINED', 'FAILED');
