-- When an operator disabled an account; how often its password was replaced, so that a login that verified the former one
-- is refused; how many events it has published.
alter table account add column disabled_at timestamptz;
alter table account add column password_version bigint not null default 1;
alter table account add column event_version bigint not null default 0;

-- Accounts that were erased: what `souk check` needs to find their events. No personal data.
create table erased_account (
    user_id       uuid        not null,
    event_version bigint      not null,
    erased_at     timestamptz not null,
    constraint erased_account_id primary key (user_id)
);
