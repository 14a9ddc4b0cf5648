-- For whom a reservation is, so that what one customer holds can be counted. Not known of those that were made before.
alter table reservation add column user_id uuid;
create index reservation_held_by on reservation (user_id) where state = 'HELD';
