-- Users who were erased, while orders of theirs may have a shipping address: until the last of them has ended, an address
-- is needed to deliver what was paid. The row goes with the last address.
create table erased_user (
    user_id   uuid        not null,
    erased_at timestamptz not null,
    -- When to look for addresses again.
    due_at    timestamptz not null,
    constraint erased_user_id primary key (user_id)
);
create index erased_user_due on erased_user (due_at);
