-- Accounts of customers and operators. An e-mail address is kept in lower case, so that the constraint sees two spellings
-- of one address as one.
create table account (
    user_id       uuid        not null,
    email         text        not null,
    password_hash text        not null,
    display_name  text        not null,
    role          text        not null,
    version       bigint      not null,
    created_at    timestamptz not null,
    updated_at    timestamptz not null,
    constraint account_id primary key (user_id),
    constraint account_email unique (email),
    constraint account_email_lower check (email = lower(email)),
    constraint account_role check (role in ('CUSTOMER', 'OPERATOR')),
    constraint account_version check (version > 0)
);

-- Signed-in devices. Of a refresh token only the hash is kept: whoever reads this table cannot sign in with it.
create table session (
    session_id   uuid        not null,
    user_id      uuid        not null,
    refresh_hash bytea       not null,
    created_at   timestamptz not null,
    constraint session_id primary key (session_id),
    constraint session_refresh unique (refresh_hash),
    constraint session_account foreign key (user_id) references account on delete cascade
);
create index session_by_user on session (user_id);
