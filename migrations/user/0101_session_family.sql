-- A session is a family of refresh tokens, of which only the last is valid. Each has two parts: one that all tokens of the
-- family share, by whose hash the session is found, and a secret of its own. A token whose family is known and whose secret
-- is not the last one was used before. Rows of the previous release have no family: their tokens were never exchanged.
alter table session add column family_hash bytea;
alter table session add column used_at timestamptz not null default now();
alter table session add column device text not null default '';

-- Refresh tokens that were used a moment ago. While a row exists, its token is answered with the same successor, as the
-- response may have been lost. The successor is sealed with a key that only the used token gives, so whoever reads this
-- table cannot open it.
create table session_used (
    token_hash       bytea       not null,
    session_id       uuid        not null,
    sealed_successor bytea       not null,
    used_at          timestamptz not null,
    constraint session_used_token primary key (token_hash),
    constraint session_used_session foreign key (session_id) references session on delete cascade
);
create index session_used_by_session on session_used (session_id);
create index session_used_by_time on session_used (used_at);

-- Sessions that ended early, until their last access token has expired: every role refuses these.
create table revocation (
    session_id uuid        not null,
    revoked_at timestamptz not null,
    constraint revocation_session primary key (session_id)
);
create index revocation_by_time on revocation (revoked_at);
