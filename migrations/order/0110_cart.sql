-- What a customer means to buy. The version counts the changes of the lines, and is locked with this row: two devices that
-- change different lines at once lose nothing, and one that names the version it has seen changes nothing else.
create table cart (
    user_id    uuid        not null,
    version    bigint      not null,
    updated_at timestamptz not null,
    constraint cart_user primary key (user_id),
    constraint cart_version check (version >= 0)
);

-- Without prices: these are of the moment in which somebody looks. At most 100 of one cart, which its row's lock makes certain.
create table cart_item (
    user_id    uuid        not null,
    product_id uuid        not null,
    quantity   integer     not null,
    added_at   timestamptz not null,
    constraint cart_item_product primary key (user_id, product_id),
    constraint cart_item_cart foreign key (user_id) references cart on delete cascade,
    constraint cart_item_quantity check (quantity between 1 and 999)
);

-- Orders that were placed from a cart and have not ended: if one fails, its lines go back. Not a column of the order, which has
-- only what its events say.
create table cart_order (
    order_id uuid not null,
    constraint cart_order_order primary key (order_id),
    constraint cart_order_of foreign key (order_id) references "order"
);
