-- Each correction of an address is another version, so that nobody overwrites, or sends a parcel to, an address that they have
-- not seen.
alter table order_shipping_address add column version bigint not null default 1;
