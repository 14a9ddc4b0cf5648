-- What came back of orders, one row for each return: the price of its items, and how much of it was refunded, which is less where
-- other refunds had left less of the captured amount. The row of the refund is there if that is not 0. Rows are only ever added.
create table order_return (
    payment_id  uuid        not null,
    number      integer     not null,
    asked_minor bigint      not null,
    minor       bigint      not null,
    refund_id   uuid,
    created_at  timestamptz not null,
    constraint order_return_number primary key (payment_id, number),
    constraint order_return_payment foreign key (payment_id) references payment,
    constraint order_return_refund unique (refund_id),
    constraint order_return_amount check (minor between 0 and asked_minor and (minor > 0) = (refund_id is not null))
);
