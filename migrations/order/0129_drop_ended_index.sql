-- no-transaction
-- The index by state has its entries, too.
drop index concurrently if exists order_by_exit;
