-- no-transaction
-- For copying recent changes to the cache, several times a second.
create index concurrently product_by_change on product (updated_at);
