-- Rebuilding: how far it is, and which replica does it until when. If that one is gone, another one begins again; what is
-- counted already is not counted twice.
alter table projection
    add column requested_by text not null default '',
    add column read_records bigint not null default 0,
    add column total_records bigint not null default 0,
    add column builder uuid,
    add column leased_until timestamptz,
    add column live_at timestamptz;
