-- What happened to each order: the truth, and the audit trail. Rows are only ever added; the service's role may not
-- change or delete them. The payload is the protobuf message that was published, byte for byte: one shape to evolve, and
-- what replays it is what consumers use. No personal data: the customer is an id, the address is elsewhere.
create table order_event (
    order_id     uuid        not null,
    version      bigint      not null,
    event_id     uuid        not null,
    type         text        not null,
    payload      bytea       not null,
    actor        text        not null,
    causation_id uuid,
    occurred_at  timestamptz not null,
    constraint order_event_version primary key (order_id, version),
    constraint order_event_counts check (version > 0)
);

-- How each order stands: a projection of its events, written in the same transaction. It can be built again from them at
-- any time, and `souk check` compares.
create table "order" (
    order_id        uuid        not null,
    user_id         uuid        not null,
    state           text        not null,
    version         bigint      not null,
    currency        text        not null,
    total_minor     bigint      not null,
    payment_method  text        not null,
    payment_id      uuid,
    captured        boolean     not null,
    refunded_minor  bigint      not null,
    exit_reason     text        not null,
    carrier         text        not null,
    tracking_number text        not null,
    expires_at      timestamptz not null,
    created_at      timestamptz not null,
    updated_at      timestamptz not null,
    constraint order_id primary key (order_id),
    constraint order_state check
        (state in ('PENDING', 'RESERVED', 'CONFIRMED', 'FULFILLED', 'REJECTED', 'PAYMENT_FAILED', 'CANCELLED', 'EXPIRED')),
    constraint order_version check (version > 0),
    constraint order_total check (total_minor between 1 and 99999999),
    constraint order_refunded check (refunded_minor between 0 and total_minor),
    constraint order_fulfilled_when_paid check (state <> 'FULFILLED' or captured),
    constraint order_payment_method check (payment_method ~ '^pm_[A-Za-z0-9_]{1,64}$')
);
create index order_by_user on "order" (user_id, order_id desc);
-- What may expire, and what may be stuck: both are few.
create index order_unsettled on "order" (expires_at) where state in ('PENDING', 'RESERVED');
create index order_unpaid on "order" (updated_at) where state = 'CONFIRMED' and not captured;

create table order_line (
    order_id    uuid    not null,
    line        integer not null,
    product_id  uuid    not null,
    sku         text    not null,
    title       text    not null,
    quantity    integer not null,
    price_minor bigint  not null,
    constraint order_line_number primary key (order_id, line),
    constraint order_line_product unique (order_id, product_id),
    constraint order_line_order foreign key (order_id) references "order",
    constraint order_line_quantity check (quantity between 1 and 999),
    constraint order_line_price check (price_minor between 1 and 99999999)
);

-- Personal data, kept apart so that it can be deleted without touching what happened.
create table order_shipping_address (
    order_id    uuid   not null,
    recipient   text   not null,
    lines       text[] not null,
    city        text   not null,
    postal_code text   not null,
    country     text   not null,
    constraint order_shipping_address_order primary key (order_id),
    constraint order_shipping_address_of foreign key (order_id) references "order"
);
