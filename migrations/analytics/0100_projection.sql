-- Figures that are built from the events of orders. All of them can be built again from the topic: a projection is one set of
-- figures, of which one is shown. Every table below has its projection first in its key, so that another one can be built
-- beside it.
create table projection (
    projection_id bigint      generated always as identity,
    state         text        not null,
    created_at    timestamptz not null,
    constraint projection_id primary key (projection_id),
    constraint projection_state check (state in ('BUILDING', 'LIVE', 'RETIRED'))
);
-- At most one is shown, and at most one is being built.
create unique index projection_one on projection (state) where state in ('BUILDING', 'LIVE');

-- The orders of a projection: up to which version their events are counted in it, so that none counts twice; when they were
-- placed, because an order counts there in the funnel; and in which stages they were counted, as bits. `lines` is the
-- OrderPlaced event as it was published, until the order is paid, when its products are counted, or ended.
create table counted_order (
    projection_id bigint      not null,
    order_id      uuid        not null,
    version       bigint      not null,
    placed_at     timestamptz not null,
    stages        integer     not null,
    lines         bytea       not null,
    constraint counted_order_id primary key (projection_id, order_id)
);

-- All figures are sums per quarter of an hour (UTC): the days and hours of every time zone are made of whole ones, also when
-- clocks change, so the time zone of the shop is a matter of reading them.

-- What was paid and refunded, in minor units of the currency. A refund that failed later is subtracted when it fails, so
-- `refunded` may be negative in one quarter.
create table sales (
    projection_id bigint      not null,
    quarter       timestamptz not null,
    currency      text        not null,
    paid_orders   bigint      not null,
    gross         bigint      not null,
    refunded      bigint      not null,
    constraint sales_quarter primary key (projection_id, quarter, currency),
    constraint sales_not_negative check (paid_orders >= 0 and gross >= 0)
);

-- The products of paid orders. Their sum is the gross sale of the same quarter.
create table product_sales (
    projection_id bigint      not null,
    quarter       timestamptz not null,
    product_id    uuid        not null,
    currency      text        not null,
    sku           text        not null,
    title         text        not null,
    orders        bigint      not null,
    units         bigint      not null,
    gross         bigint      not null,
    constraint product_sales_quarter primary key (projection_id, quarter, product_id, currency),
    constraint product_sales_not_negative check (orders >= 0 and units >= 0 and gross >= 0)
);

-- How far the orders of a quarter came: those that were placed in it, whenever they came there.
create table funnel (
    projection_id bigint      not null,
    quarter       timestamptz not null,
    stage         text        not null,
    reason        text        not null,
    orders        bigint      not null,
    constraint funnel_quarter primary key (projection_id, quarter, stage, reason),
    constraint funnel_stage check (stage in
        ('PLACED', 'RESERVED', 'CONFIRMED', 'PAID', 'FULFILLED', 'REJECTED', 'PAYMENT_FAILED', 'CANCELLED', 'EXPIRED')),
    constraint funnel_not_negative check (orders >= 0)
);

-- How long it took to confirm the orders of a quarter: how many took how long, on a logarithmic scale, which can be added up
-- over any time.
create table confirmation_time (
    projection_id bigint      not null,
    quarter       timestamptz not null,
    bucket        smallint    not null,
    orders        bigint      not null,
    constraint confirmation_time_quarter primary key (projection_id, quarter, bucket),
    constraint confirmation_time_not_negative check (orders >= 0)
);

-- How many events of each partition of the topic wait, as the replica knows that consumes it.
create table partition_lag (
    partition     integer     not null,
    waiting       bigint      not null,
    last_event_at timestamptz,
    measured_at   timestamptz not null,
    constraint partition_lag_partition primary key (partition)
);
