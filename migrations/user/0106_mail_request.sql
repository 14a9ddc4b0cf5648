-- When the owner of the address proved that it is theirs.
alter table account add column verified_at timestamptz;

-- Links that were requested by mail. A token is derived from the id of its request and a key that only the service has, so
-- it is stored nowhere; of the hash, nobody can compute it. A row goes when its token is used.
create table mail_request (
    mail_request_id uuid        not null,
    user_id         uuid        not null,
    purpose         text        not null,
    token_hash      bytea       not null,
    created_at      timestamptz not null,
    expires_at      timestamptz not null,
    constraint mail_request_id primary key (mail_request_id),
    constraint mail_request_token unique (token_hash),
    constraint mail_request_account foreign key (user_id) references account on delete cascade,
    constraint mail_request_purpose check (purpose in ('RESET_PASSWORD', 'VERIFY_EMAIL'))
);
create index mail_request_by_user on mail_request (user_id, created_at);
create index mail_request_by_end on mail_request (expires_at);

-- Addresses for which a password reset was requested, whether they have an account or not: the call does the same for both,
-- and a job finds out a moment later.
create table reset_request (
    email        text        not null,
    requested_at timestamptz not null,
    constraint reset_request_email primary key (email)
);
create index reset_request_by_time on reset_request (requested_at);
