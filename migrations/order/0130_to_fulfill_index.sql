-- no-transaction
-- The pick list, oldest first. What is completely refunded stays confirmed, and would collect where the list begins.
create index concurrently order_to_fulfill on "order" (order_id)
    where state = 'CONFIRMED' and captured and refunded_minor < total_minor;
