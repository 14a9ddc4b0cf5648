-- no-transaction
-- The job that deletes sessions that were not used for long begins here.
create index concurrently session_by_use on session (used_at);
