-- What is for sale. A product is never deleted: orders point to it, so it is archived instead.
create table product (
    product_id  uuid        not null,
    sku         text        not null,
    title       text        not null,
    description text        not null,
    currency    text        not null,
    price_minor bigint      not null,
    state       text        not null,
    version     bigint      not null,
    created_at  timestamptz not null,
    updated_at  timestamptz not null,
    constraint product_id primary key (product_id),
    constraint product_sku unique (sku),
    constraint product_sku_form check (sku ~ '^[A-Z0-9][A-Z0-9._-]{0,63}$'),
    constraint product_price check (price_minor between 1 and 99999999),
    constraint product_currency check (currency ~ '^[A-Z]{3}$'),
    constraint product_state check (state in ('ACTIVE', 'ARCHIVED')),
    constraint product_version check (version > 0)
);

-- The catalogue is read by title. Byte order, so that a page ends at the same place for every replica.
create index product_by_title on product (title collate "C", product_id) where state = 'ACTIVE';
