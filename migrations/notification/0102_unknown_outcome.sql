-- How many attempts ended without the reply that says whether the message was accepted. Each of them may have been a delivery, so there
-- are few of them.
alter table notification add column unknown_outcomes integer not null default 0;
