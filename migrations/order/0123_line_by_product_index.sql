-- no-transaction
-- Operators search orders by product and by SKU, newest first.
create index concurrently order_line_by_product on order_line (product_id, order_id desc);
