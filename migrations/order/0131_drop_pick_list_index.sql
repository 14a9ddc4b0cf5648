-- no-transaction
-- The index of what is to be fulfilled has taken its place.
drop index concurrently if exists order_to_pick;
