-- no-transaction
-- Disabled accounts are few.
create index concurrently account_disabled on account (user_id) where disabled_at is not null;
