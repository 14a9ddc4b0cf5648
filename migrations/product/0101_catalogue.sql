-- The search for words that were mistyped. An administrator may create it, or the owner of the database: it is a trusted one.
create extension if not exists pg_trgm;

-- The catalogue's tree. It is read with a recursive query: it is small, and moves are rare. The verbs keep it without cycles:
-- one transaction at a time changes it (`lock table ... in share row exclusive mode`, which readers do not wait for).
create table category (
    category_id uuid        not null,
    parent_id   uuid,
    name        text        not null,
    version     bigint      not null,
    created_at  timestamptz not null,
    updated_at  timestamptz not null,
    constraint category_id primary key (category_id),
    constraint category_parent foreign key (parent_id) references category,
    constraint category_name unique nulls not distinct (parent_id, name),
    constraint category_own_parent check (parent_id <> category_id),
    constraint category_version check (version > 0)
);
create index category_by_name on category (name collate "C", category_id);

alter table product
    add column category_id uuid,
    add column language    text   not null default '',
    add column image_urls  text[] not null default '{}',
    add column image_alts  text[] not null default '{}',
    -- What is searched: a trigger keeps it, so that it is right also for what the previous release writes.
    add column document    tsvector,
    add constraint product_category foreign key (category_id) references category not valid,
    add constraint product_language check (language in ('', 'de', 'en', 'es', 'fr', 'it', 'nl')) not valid,
    add constraint product_images check (cardinality(image_urls) = cardinality(image_alts)) not valid;

-- The words of all titles, from which a mistyped word is corrected. Words are only ever added.
create table product_word (
    word text not null,
    constraint product_word_word primary key (word)
);
create index product_word_similar on product_word using gin (word gin_trgm_ops);
-- For beginnings of words, in any locale.
create index product_word_prefix on product_word (word text_pattern_ops);

-- Lower case, with one blank between words. All else is no part of a word, so that Postgres' parser finds neither hosts nor
-- paths nor numbers with signs in a title, and queries are cut in the same way.
create function search_text(text) returns text language sql immutable parallel safe
    return lower(regexp_replace($1, '[^[:alnum:]]+', ' ', 'g'));

create function language_config(language text) returns regconfig language sql immutable parallel safe
    return case language
        when 'de' then 'german'::regconfig when 'en' then 'english'::regconfig when 'es' then 'spanish'::regconfig
        when 'fr' then 'french'::regconfig when 'it' then 'italian'::regconfig when 'nl' then 'dutch'::regconfig
        else 'simple'::regconfig
    end;

-- The words as they are, for beginnings of words, and their stems in the language of the product. The function has its owner's
-- rights, as the service has none on a new table until the migrations have ended.
create function product_describe() returns trigger language plpgsql security definer set search_path = public, pg_temp as $$
begin
    if tg_op = 'UPDATE' and new.document is not null and (new.sku, new.title, new.description, new.language)
        is not distinct from (old.sku, old.title, old.description, old.language) then
        return new;
    end if;
    new.document :=
        setweight(to_tsvector('simple', search_text(new.sku || ' ' || new.title))
            || to_tsvector(language_config(new.language), search_text(new.title)), 'A')
        || setweight(to_tsvector('simple', search_text(new.description))
            || to_tsvector(language_config(new.language), search_text(new.description)), 'D');
    -- In one order, so that two transactions do not wait for each other.
    insert into product_word (word)
        select distinct word from regexp_split_to_table(search_text(new.title), ' ') as word
        where length(word) between 3 and 40 order by word
        on conflict do nothing;
    return new;
end
$$;
create trigger product_describe before insert or update on product
    for each row execute function product_describe();
