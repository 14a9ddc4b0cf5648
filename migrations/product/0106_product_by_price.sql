-- no-transaction
create index concurrently product_by_price on product (currency, price_minor, product_id) where state = 'ACTIVE';
