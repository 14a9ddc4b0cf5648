-- no-transaction
-- Refreshing finds a session by it, and no two sessions share one.
create unique index concurrently session_family on session (family_hash);
