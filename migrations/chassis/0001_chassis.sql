-- What every service keeps beside its own tables. The same file in every folder; a test holds the copies equal.

-- Answers that were given, so that the same request gets the same answer. Only successes are stored, in the transaction
-- of their effect: a failed attempt leaves nothing behind and may be tried again.
create table idempotency (
    caller       text        not null,
    method       text        not null,
    key          text        not null,
    request_hash bytea       not null,
    response     bytea       not null,
    created_at   timestamptz not null,
    constraint idempotency_key primary key (caller, method, key)
);
create index idempotency_age on idempotency (created_at);

-- Events that are not published yet. A row is appended in the transaction of what it tells, after the row of its
-- aggregate was locked: so for one key, the order of ids is the order of commits. Across keys it is not, which is why
-- nobody ever reads on from the last id seen. Rows go when the broker has acknowledged them.
create table outbox (
    id           bigint      generated always as identity,
    event_id     uuid        not null,
    topic        text        not null,
    key          uuid        not null,
    version      bigint      not null,
    type         text        not null,
    payload      bytea       not null,
    actor        text        not null,
    causation_id uuid,
    traceparent  text,
    created_at   timestamptz not null,
    constraint outbox_id primary key (id)
);

-- Up to which version each consumer has taken in each stream. Moved in the transaction of the effect, so that an event
-- that comes twice has its effect once.
create table inbox (
    consumer text   not null,
    stream   uuid   not null,
    version  bigint not null,
    constraint inbox_stream primary key (consumer, stream)
);

-- Events that a consumer could not handle, and never will without somebody's help. While a key has a row here, all its
-- later events for that consumer are put behind it, so that their order holds.
create table dead_letter (
    id               bigint      generated always as identity,
    consumer         text        not null,
    key              uuid        not null,
    topic            text        not null,
    partition        integer     not null,
    partition_offset bigint      not null,
    event_id         uuid        not null,
    version          bigint      not null,
    type             text        not null,
    payload          bytea       not null,
    actor            text        not null,
    causation_id     uuid,
    occurred_at      timestamptz not null,
    error            text        not null,
    created_at       timestamptz not null,
    constraint dead_letter_id primary key (id),
    constraint dead_letter_record unique (consumer, topic, partition, partition_offset)
);
create index dead_letter_key on dead_letter (consumer, key, id);
