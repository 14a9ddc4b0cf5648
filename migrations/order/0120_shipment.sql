-- An order can be sent in parts, and what was sent can come back. How many units of a line were is counted in the line, so that
-- the checks below hold whatever the code believes. Orders that an earlier release fulfilled have no shipments, and their lines
-- count nothing: a state of FULFILLED means all units of all lines.
alter table order_line
    add column fulfilled integer not null default 0,
    add column returned integer not null default 0;
alter table order_line add constraint order_line_fulfilled check (fulfilled between 0 and quantity) not valid;
alter table order_line add constraint order_line_returned check (returned between 0 and fulfilled) not valid;

-- How many shipments and returns there were: an order that has neither is read and written as before, without these tables. What a
-- customer may have received is paid for, and not cancelled. The release before would cancel it, and is refused here.
alter table "order"
    add column shipments integer not null default 0,
    add column returns integer not null default 0;
alter table "order" add constraint order_shipments check
    (shipments >= 0 and returns >= 0 and (shipments = 0 or captured and state not in ('CANCELLED', 'EXPIRED'))) not valid;

create table order_shipment (
    order_id        uuid        not null,
    number          integer     not null,
    carrier         text        not null,
    tracking_number text        not null,
    -- What it contains: for each product, how many units.
    product_ids     uuid[]      not null,
    quantities      integer[]   not null,
    shipped_at      timestamptz not null,
    constraint order_shipment_number primary key (order_id, number),
    constraint order_shipment_counts check (number > 0),
    constraint order_shipment_items check (cardinality(product_ids) = cardinality(quantities) and cardinality(quantities) > 0),
    constraint order_shipment_order foreign key (order_id) references "order"
);
