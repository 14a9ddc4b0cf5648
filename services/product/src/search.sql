-- An index finds the products whose titles match, and, if these are too few, those that match at all; both stop after some, as every
-- second product may have a word. As these are not the newest, the newest products are then looked at one by one. All is bounded, so
-- no word is slow, wherever in the catalogue its products are. The rank is that of the title, which is in the row; among others, new
-- products come first, and before all the product of which the query is the SKU.
with titled as materialized (
    select product_id as id, title_document from product
    where state = 'ACTIVE' and title_document @@ $1::text::tsquery limit $2::bigint + 1),
matching as materialized (
    select product_id as id, title_document from product where state = 'ACTIVE' and document @@ $1::text::tsquery
    limit case when (select count(*) from titled) < $4 then $2 + 1 else 0 end),
newest as materialized (
    select id, title_document, is_titled from (
        select product_id as id, title_document, document, title_document @@ $1::text::tsquery as is_titled from product
        where state = 'ACTIVE' order by product_id desc
        limit case when (select count(*) from titled) > $2 or (select count(*) from matching) > $2
            then $3::bigint else 0 end) as latest
    where case when (select count(*) from titled) > $2 then is_titled else document @@ $1::text::tsquery end
    limit $4),
found as (
    select distinct on (id) * from (
        select id, title_document, 1 as tier from titled
        union all select id, title_document, 0 from matching
        union all select id, title_document, is_titled::integer from newest
        union all select product_id, title_document, 2 from product
            where state = 'ACTIVE' and sku = $5 and ($6 = '' or language = $6)) as either
    order by id, tier desc),
ranked as (
    select id, case tier when 2 then 1000000000 else round(1000000
        * (ts_rank(title_document, $7::text::tsquery, 1) + ts_rank(title_document, $8::text::tsquery, 1))) end::bigint as rank
    from (select * from found order by tier desc, id desc limit $4) as candidate)
select id as "product_id!: ProductId", rank as "rank!" from ranked
where (rank, id) < ($9, $10) order by rank desc, id desc limit $11
