-- The projection that is shown first.
insert into projection (state, created_at) values ('LIVE', now());
