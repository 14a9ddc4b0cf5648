-- What customers are told: one row for each order, outcome and channel, or for each mail with a link, which the constraint
-- keeps, however often an event is delivered. It has no address, and no text: the user service is asked for the address at each
-- delivery, and the text follows from `event`, the published event, which has no personal data.
--
-- `due_at` is when a worker may attempt the delivery; none, when it has ended. A worker that claims the row writes its `lease`, and
-- sets `due_at` to the end of the lease, so that another worker attempts it if this one is killed.
--
-- `refused_at` is when a mail server refused the address for good, and `refusal_unreported` whether the user service, which marks
-- the address, has still to hear of it.
create table notification (
    notification_id uuid        not null,
    user_id         uuid        not null,
    subject_id      uuid        not null,
    kind            text        not null,
    channel         text        not null,
    event           bytea       not null,
    occurred_at     timestamptz not null,
    state           text        not null,
    attempts        integer     not null,
    error           text        not null,
    due_at          timestamptz,
    lease           uuid,
    created_at      timestamptz not null,
    -- When `state` became PENDING: attempts end a time after it.
    wanted_at       timestamptz not null,
    delivered_at    timestamptz,
    refused_at      timestamptz,
    refusal_unreported boolean  not null default false,
    constraint notification_id primary key (notification_id),
    constraint notification_once unique (subject_id, kind, channel),
    constraint notification_channel check (channel in ('EMAIL', 'SMS')),
    constraint notification_state check (state in ('PENDING', 'DELIVERED', 'REFUSED', 'DROPPED', 'GIVEN_UP')),
    constraint notification_due check ((state = 'PENDING') = (due_at is not null)),
    constraint notification_delivered check (state <> 'DELIVERED' or delivered_at is not null)
);
create index notification_by_due on notification (channel, due_at) where due_at is not null;
create index notification_by_user on notification (user_id, notification_id);
create index notification_by_delivery on notification (user_id, delivered_at) where delivered_at is not null;
create index notification_by_lease on notification (user_id) where lease is not null;
create index notification_by_refusal on notification (notification_id) where refusal_unreported;
