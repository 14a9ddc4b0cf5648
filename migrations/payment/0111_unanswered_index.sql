-- no-transaction
-- How late comparisons are is measured every ten seconds.
create index concurrently payment_unanswered on payment (unanswered_since) where unanswered_since is not null;
