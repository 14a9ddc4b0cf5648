-- Dead letters that an operator discarded: the whole row as it was, who did it, when and why. Rows are only ever added; the
-- service's role may not change or delete them. `souk check` reads them: what was discarded on purpose is no violation.
create table dead_letter_discard (
    dead_letter_id   bigint      not null,
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
    reason           text        not null,
    discarded_by     text        not null,
    discarded_at     timestamptz not null,
    constraint dead_letter_discard_id primary key (dead_letter_id),
    constraint dead_letter_discard_reason check (reason <> '')
);
create index dead_letter_discard_record on dead_letter_discard (topic, partition, partition_offset);
