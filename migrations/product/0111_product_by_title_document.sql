-- no-transaction
create index concurrently product_by_title_document on product using gin (title_document) with (fastupdate = off)
    where state = 'ACTIVE';
