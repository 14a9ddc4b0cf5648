-- no-transaction
create index concurrently product_archived on product (product_id) where state = 'ARCHIVED';
