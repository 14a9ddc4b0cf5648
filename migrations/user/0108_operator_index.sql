-- no-transaction
-- Operators are few beside customers.
create index concurrently account_operator on account (user_id) where role = 'OPERATOR';
