-- no-transaction
-- The keys of events about SKUs, for checks.
create unique index concurrently stock_low_key on stock (low_id) where low_id is not null;
