-- Searches look for titles first, and rank by them: the words of SKU and title are beside all words, in a column of their own,
-- which is short enough to be stored in the row.
alter table product add column title_document tsvector;

-- As in 0101, and: both documents also have the language as a word that no query has, such as `=de`, so that an index finds the
-- words of one language.
create or replace function product_describe() returns trigger language plpgsql security definer
set search_path = public, pg_temp as $$
declare
    language constant tsvector := array_to_tsvector(array['=' || new.language]);
    title constant tsvector := to_tsvector('simple', search_text(new.sku || ' ' || new.title))
        || to_tsvector(language_config(new.language), search_text(new.title));
begin
    if tg_op = 'UPDATE' and new.title_document is not null and (new.sku, new.title, new.description, new.language)
        is not distinct from (old.sku, old.title, old.description, old.language) then
        return new;
    end if;
    new.title_document := title || language;
    new.document := setweight(title, 'A')
        || setweight(to_tsvector('simple', search_text(new.description))
            || to_tsvector(language_config(new.language), search_text(new.description)), 'D')
        || language;
    -- In one order, so that two transactions do not wait for each other.
    insert into product_word (word)
        select distinct word from regexp_split_to_table(search_text(new.title), ' ') as word
        where length(word) between 3 and 40 order by word
        on conflict do nothing;
    return new;
end
$$;
