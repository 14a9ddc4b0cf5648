-- no-transaction
-- The trigger describes the products that were there before. In short transactions, as updates of products wait for them.
do $$
declare
    batch uuid[];
begin
    loop
        select array_agg(product_id) into batch
            from (select product_id from product where document is null limit 500) as unsearched;
        exit when batch is null;
        -- The words are committed before a product is locked: a trigger that finds them waits for nobody, so that nothing waits
        -- in a circle with those who create products.
        insert into product_word (word)
            select distinct word from product, regexp_split_to_table(search_text(title), ' ') as word
            where product_id = any(batch) and length(word) between 3 and 40 order by word
            on conflict do nothing;
        commit;
        update product set title = title where product_id = any(batch);
        commit;
    end loop;
end
$$;
