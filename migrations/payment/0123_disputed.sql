-- Whether the charge has been disputed, as the last comparison with the provider found. Here as soon as the provider reports a
-- dispute, and whether or not a refund was ever refused for it.
alter table payment add column disputed boolean not null default false;
