-- no-transaction
-- See order_line_by_product.
create index concurrently order_line_by_sku on order_line (sku, order_id desc);
