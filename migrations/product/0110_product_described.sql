-- no-transaction
-- The trigger describes the products that were there before. In short transactions, as updates of products wait for them. The words
-- of their titles are there (0103), so that a trigger that finds them waits for nobody.
do $$
declare
    batch uuid[];
begin
    loop
        select array_agg(product_id) into batch
            from (select product_id from product where title_document is null limit 500) as undescribed;
        exit when batch is null;
        update product set title = title where product_id = any(batch);
        commit;
    end loop;
end
$$;
