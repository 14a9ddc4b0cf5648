-- no-transaction
create index concurrently product_by_category on product (category_id) where category_id is not null;
