-- Users who were erased lately: their access tokens are valid for a while, so what they set with one is deleted, too.
create table erased_user (
    user_id   uuid        primary key,
    erased_at timestamptz not null
);
