-- Up to which version of its order a reservation acted. A hold that grew old is settled by asking the order service, whose
-- answer may be ahead of the events that are still on their way, or behind those that came meanwhile: whatever is not
-- newer than this changes nothing.
alter table reservation add column order_version bigint not null default 0;
