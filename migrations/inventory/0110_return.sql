-- Units that were sold, and taken back.
alter table reservation_line add column returned integer not null default 0;
alter table reservation_line add constraint reservation_line_returned check (returned between 0 and quantity) not valid;

-- The stock of a SKU is low with this many available units or fewer; null: it never is. Each time it becomes low, an event is
-- published under `low_id`, and `low_version` counts these.
alter table stock
    add column low_at bigint,
    add column low_id uuid,
    add column low_version bigint not null default 0;
alter table stock add constraint stock_low check (low_at >= 0 and (low_at is null or low_id is not null)) not valid;

-- What operators did to stock, and what came back: why, how many units, and who did it. Rows are only ever added. What was held
-- and sold for an order is in its reservation.
create table stock_movement (
    movement_id bigint      generated always as identity,
    sku         text        not null,
    reason      text        not null,
    units       bigint      not null,
    actor       text        not null,
    order_id    uuid,
    at          timestamptz not null,
    constraint stock_movement_id primary key (movement_id),
    constraint stock_movement_reason check
        (reason in ('RECEIVED', 'COUNT', 'DAMAGE', 'LOSS', 'RETURNED', 'RETURNED_UNSALEABLE')),
    constraint stock_movement_units check (units <> 0)
);
create index stock_movement_by_sku on stock_movement (sku, movement_id);
