-- The public halves of the keys that sign access tokens, so that all replicas publish the same keys and sign with the same
-- one, whenever each of them reads its files. A key signs only some time after it was seen first: until then, every role
-- and the edge have fetched it. It is published for as long as tokens that it signed may be valid.
create table signing_key (
    key_id     text        not null,
    public_key jsonb       not null,
    -- When a replica first had its file.
    seen_at    timestamptz not null,
    -- When a replica last had its file.
    held_at    timestamptz not null,
    constraint signing_key_id primary key (key_id)
);
