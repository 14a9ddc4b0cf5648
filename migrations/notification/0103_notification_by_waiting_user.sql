-- no-transaction
-- How many notifications of a user wait: an event that is one too many becomes one that is dropped.
create index concurrently notification_by_waiting_user on notification (user_id) where due_at is not null;
