-- no-transaction
-- Without the list of pending entries, each search would be as slow as the list is long; products change rarely.
create index concurrently product_by_document on product using gin (document) with (fastupdate = off) where state = 'ACTIVE';
