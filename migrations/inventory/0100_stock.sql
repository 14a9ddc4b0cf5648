-- Units of one SKU, by where they are. Every statement that moves units changes two of these counters at once, and the
-- checks below make overselling impossible whatever the code believes: the transaction that would do it fails here.
create table stock (
    sku         text   not null,
    available   bigint not null default 0,
    reserved    bigint not null default 0,
    sold        bigint not null default 0,
    received    bigint not null default 0,
    written_off bigint not null default 0,
    constraint stock_sku primary key (sku),
    constraint stock_sku_form check (sku ~ '^[A-Z0-9][A-Z0-9._-]{0,63}$'),
    constraint stock_not_oversold check (available >= 0 and reserved >= 0 and sold >= 0),
    constraint stock_conserved check (available + reserved + sold = received - written_off)
);

-- What one order holds. There is one for each order, and it has the order's id. `version` counts its events.
create table reservation (
    order_id   uuid        not null,
    state      text        not null,
    version    bigint      not null,
    created_at timestamptz not null,
    updated_at timestamptz not null,
    checked_at timestamptz not null,
    constraint reservation_order primary key (order_id),
    constraint reservation_state check (state in ('HELD', 'SOLD', 'RELEASED', 'RETURNED', 'REJECTED')),
    constraint reservation_version check (version >= 0)
);
-- For finding holds that nobody let go of.
create index reservation_held on reservation (checked_at) where state = 'HELD';

create table reservation_line (
    order_id uuid    not null,
    sku      text    not null,
    quantity integer not null,
    constraint reservation_line_sku primary key (order_id, sku),
    constraint reservation_line_reservation foreign key (order_id) references reservation,
    constraint reservation_line_quantity check (quantity > 0)
);

-- Every state a reservation was in, so that an illegal step would be seen afterwards.
create table reservation_history (
    order_id uuid        not null,
    version  bigint      not null,
    state    text        not null,
    at       timestamptz not null,
    constraint reservation_history_version primary key (order_id, version)
);
