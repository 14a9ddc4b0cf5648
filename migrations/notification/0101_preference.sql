-- What users do not want to be told, by kind and channel; what is not here is wanted. The rows of a user go when they are erased.
create table unwanted (
    user_id uuid not null,
    kind    text not null,
    channel text not null,
    constraint unwanted_once primary key (user_id, kind, channel)
);
