//! Full-text search in Postgres. A trigger keeps the words of each product, as they are and as stems of its language
//! (`migrations/product/0101_catalogue.sql`). A query becomes a condition on these: each of its words may be the beginning of a word,
//! or another form of it. Nothing of a query but letters and digits reaches the condition.

use std::collections::HashMap;

use chassis::rpc::page::Page;
use contracts::souk::product::v1::{SearchProductsRequest, SearchProductsResponse};
use sqlx::PgPool;
use uuid::Uuid;

use crate::error::Error;
use crate::product::{Product, ProductId};
use crate::service::Service;

/// More matches are not returned: ranking reads the words of each.
const RANKED: i64 = 500;
/// Up to so many matches, the newest are ranked.
const MATCHING: i64 = 2_000;
/// Of more matches, those among so many newest products are ranked, then others.
const LATEST: i64 = 2_000;
/// More words are not read.
const WORDS: i64 = 16;
/// A mistyped word is replaced by any of these.
const SIMILAR: i64 = 3;
/// The beginning of a word has at least so many letters.
const SHORTEST_BEGINNING: usize = 2;
/// A shorter word has too little that could be similar.
const SHORTEST_REPLACED: i32 = 3;

/// What the dictionaries of the languages are called.
const DICTIONARIES: [(&str, &str); 6] = [
    ("de", "german_stem"),
    ("en", "english_stem"),
    ("es", "spanish_stem"),
    ("fr", "french_stem"),
    ("it", "italian_stem"),
    ("nl", "dutch_stem"),
];

/// A word of a query.
#[derive(Debug, Clone)]
struct Word {
    text: String,
    /// In the languages that are searched.
    stems: Vec<String>,
    /// Whether it is too frequent in one of the languages to be a condition.
    is_stop_word: bool,
}

/// Rank and id of the last product of a page, and whether words were replaced for it.
type Key = (bool, i64, Uuid);

struct Found {
    product_id: ProductId,
    rank: i64,
}

pub(crate) async fn search(service: &Service, request: SearchProductsRequest) -> Result<SearchProductsResponse, Error> {
    let SearchProductsRequest { query, language, .. } = request;
    let list = format!("products with {query:?} in {language}");
    let page = Page::<Key>::parse(request.page_size, &request.page_token, &list)?;
    let words = read_words(&service.lists, &query, &language).await?;
    if words.is_empty() {
        return Ok(SearchProductsResponse::default());
    }

    let mut similar = HashMap::new();
    let mut found = match page.after {
        Some((true, ..)) => Vec::new(),
        Some((false, ..)) | None => find(&service.lists, &words, &similar, &language, &page).await?,
    };
    if found.is_empty() && !matches!(page.after, Some((false, ..))) {
        similar = find_similar(&service.lists, &words).await?;
        if !similar.is_empty() {
            found = find(&service.lists, &words, &similar, &language, &page).await?;
        }
    }
    let is_replaced = !similar.is_empty() && !found.is_empty();
    let next_page_token = page.cut(&mut found, |last| (is_replaced, last.rank, last.product_id.0));
    let product_ids: Vec<_> = found.iter().map(|it| it.product_id).collect();
    let mut replaced_words: Vec<_> = if is_replaced { similar.into_keys().collect() } else { Vec::new() };
    replaced_words.sort();
    let products = Product::find_in_order(&service.lists, &product_ids).await?;
    Ok(SearchProductsResponse { products, next_page_token, replaced_words })
}

/// The words of a query, without stop words unless there is nothing else.
async fn read_words(db: &PgPool, query: &str, language: &str) -> Result<Vec<Word>, Error> {
    let dictionaries = DICTIONARIES.iter().filter(|(it, _)| language.is_empty() || *it == language);
    let dictionaries: Vec<_> = dictionaries.map(|(_, dictionary)| (*dictionary).to_owned()).collect();
    let rows = sqlx::query!(
        r#"with word as (
             select text, min(at) as at
             from regexp_split_to_table(search_text($1), ' ') with ordinality as it (text, at)
             where text <> '' group by text order by 2 limit $3),
           lexed as (
             select text, at, ts_lexize(dictionary::regdictionary, text) as stems
             from word cross join unnest($2::text[]) as dictionary)
           select text as "text!", coalesce(array_agg(distinct stems[1]) filter (where stems[1] is not null), '{}') as "stems!",
             coalesce(bool_or(stems = '{}'), false) as "is_stop_word!"
           from lexed group by text, at order by at"#,
        query,
        &dictionaries,
        WORDS,
    )
    .fetch_all(db)
    .await?;
    let words = rows.into_iter().map(|row| Word { text: row.text, stems: row.stems, is_stop_word: row.is_stop_word });
    let mut words: Vec<_> = words.collect();
    if words.iter().any(|word| !word.is_stop_word) {
        words.retain(|word| !word.is_stop_word);
    }
    Ok(words)
}

/// The words of titles that are most like those words with which no word of a title begins.
async fn find_similar(db: &PgPool, words: &[Word]) -> Result<HashMap<String, Vec<String>>, Error> {
    let texts: Vec<_> = words.iter().map(|word| word.text.clone()).collect();
    let rows = sqlx::query!(
        r#"select wanted.word as "wanted!", alike.word as "word!"
           from unnest($1::text[]) as wanted (word) cross join lateral (
             select word from product_word where word % wanted.word
             order by similarity(word, wanted.word) desc, word limit $2) as alike
           where length(wanted.word) >= $3 and not exists (
             select from product_word as known
             where known.word ~>=~ wanted.word and known.word ~<~ (wanted.word || chr(1114111)))"#,
        &texts,
        SIMILAR,
        SHORTEST_REPLACED,
    )
    .fetch_all(db)
    .await?;
    let mut similar = HashMap::<String, Vec<String>>::new();
    for row in rows {
        similar.entry(row.wanted).or_default().push(row.word);
    }
    Ok(similar)
}

/// The index of words finds the matches, and stops after some: a frequent word would have it read most products. As these are not the
/// newest, the newest products are then looked at one by one. Both are bounded, so no word is slow, wherever in the catalogue
/// its products are.
async fn find(
    db: &PgPool,
    words: &[Word],
    similar: &HashMap<String, Vec<String>>,
    language: &str,
    page: &Page<Key>,
) -> Result<Vec<Found>, Error> {
    let (_, rank, product_id) = page.after.unwrap_or((false, i64::MAX, Uuid::max()));
    let found = sqlx::query_as!(
        Found,
        r#"with matching as materialized (
             select product_id as id from product
             where state = 'ACTIVE' and document @@ $1::text::tsquery and ($2 = '' or language = $2) limit $8::bigint + 1),
           newest as materialized (
             select id from (
               select product_id as id, document, language from product where state = 'ACTIVE' order by product_id desc
               limit case when (select count(*) from matching) > $8 then $9::bigint else 0 end) as latest
             where document @@ $1::text::tsquery and ($2 = '' or language = $2) limit $3),
           candidate as (
             select id from (select id from matching union select id from newest) as either order by id desc limit $3),
           ranked as (
             select product_id, round(1000000 * (ts_rank(document, $1::text::tsquery, 1)
               + ts_rank(document, $4::text::tsquery, 1)))::bigint as rank
             from candidate join product on product_id = id)
           select product_id as "product_id!: ProductId", rank as "rank!" from ranked
           where (rank, product_id) < ($5, $6) order by rank desc, product_id desc limit $7"#,
        condition(words, similar),
        language,
        RANKED,
        exact(words),
        rank,
        product_id,
        page.limit(),
        MATCHING,
        LATEST,
    );
    Ok(found.fetch_all(db).await?)
}

/// A `tsquery`: each word, in one of its forms.
fn condition(words: &[Word], similar: &HashMap<String, Vec<String>>) -> String {
    let each = words.iter().map(|word| {
        let beginning = if word.text.chars().count() < SHORTEST_BEGINNING { "" } else { ":*" };
        let other = word.stems.iter().chain(similar.get(&word.text).into_iter().flatten());
        let other = other.filter(|it| **it != word.text).map(|it| format!(" | {}", quote(it)));
        format!("({}{beginning}{})", quote(&word.text), other.collect::<String>())
    });
    each.collect::<Vec<_>>().join(" & ")
}

/// A `tsquery` for the rank: whole words count more than their beginnings.
fn exact(words: &[Word]) -> String {
    words.iter().map(|word| quote(&word.text)).collect::<Vec<_>>().join(" | ")
}

/// Words have no quotes; stems of some languages might.
fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}
