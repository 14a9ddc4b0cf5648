-- no-transaction
-- What is paid and not completely fulfilled, oldest first.
create index concurrently order_to_pick on "order" (order_id) where state = 'CONFIRMED' and captured;
