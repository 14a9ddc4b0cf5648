-- no-transaction
-- Returns of which less than the price was refunded.
create index concurrently order_return_short on order_return (payment_id) where minor < asked_minor;
