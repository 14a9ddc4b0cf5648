-- How many text messages a number got in an hour, as several accounts may name it. The number itself is not stored: `number` is an
-- HMAC-SHA256 of it. Rows are deleted when the hour has passed.
create table texted_number (
    number bytea       not null,
    hour   timestamptz not null,
    count  integer     not null,
    constraint texted_number_hour primary key (number, hour)
);
create index texted_number_by_hour on texted_number (hour);

-- The key of the HMAC: random bits of this database alone, at least 240 of them.
create table texted_number_key (
    key bytea not null
);
create unique index texted_number_key_once on texted_number_key ((true));
insert into texted_number_key (key) values (uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()));
