-- no-transaction
-- What came back of an order. `souk check` compares it with the order.
create index concurrently stock_movement_by_order on stock_movement (order_id) where order_id is not null;
