//! Full-text search in Postgres. A trigger keeps the words of each product, as they are and as stems of its language
//! (`migrations/product/0109_product_title_document.sql`). A query becomes a condition on these: each of its words is a word of
//! the product or another form of it, and the last one may be the beginning of one. Nothing of a query but letters and digits
//! reaches the condition.

use std::collections::HashMap;
use std::time::Duration;

use chassis::rpc::page::Page;
use contracts::souk::product::v1::{SearchProductsRequest, SearchProductsResponse};
use sqlx::PgPool;
use uuid::Uuid;

use crate::error::Error;
use crate::product::{Product, ProductId};
use crate::service::Service;

/// More matches are not returned.
const RANKED: i64 = 500;
/// Up to so many matches, the newest are ranked.
const MATCHING: i64 = 1_000;
/// Of more matches, those among so many newest products are ranked, then others.
const LATEST: i64 = 1_000;
/// More words are not read.
const WORDS: i64 = 8;
/// A mistyped word is replaced by up to so many words.
const SIMILAR: i64 = 3;
/// Which are looked for among so many, as not all are words of products that are for sale.
const ALIKE: i64 = 20;
/// The beginning of a word has at least so many letters.
const SHORTEST_BEGINNING: usize = 2;
/// A shorter word has too little that could be similar.
const SHORTEST_REPLACED: usize = 3;
/// How long a search waits for others.
const BEGINS_WITHIN: Duration = Duration::from_secs(2);

/// What the dictionaries of the languages are called.
const DICTIONARIES: [(&str, &str); 6] = [
    ("de", "german_stem"),
    ("en", "english_stem"),
    ("es", "spanish_stem"),
    ("fr", "french_stem"),
    ("it", "italian_stem"),
    ("nl", "dutch_stem"),
];

/// Queries are read in several ways, one after the other until something is found.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Attempt {
    Whole = 0,
    /// What is a stop word in one language is a word that matters in another: `hat`, `door`.
    WithoutStopWords = 1,
    /// Nor with words that no product has: these are replaced by similar ones.
    Corrected = 2,
}

/// The attempt that found the last product of a page, and its rank and id.
type Key = (u8, i64, Uuid);

/// A word of a query.
#[derive(Debug, Clone, Default)]
struct Word {
    text: String,
    /// In the languages that are searched.
    stems: Vec<String>,
    /// Whether it is one in one of these languages.
    is_stop_word: bool,
    /// It may be the beginning of a word. Only one may, as the index is read for all words that begin with it.
    is_last: bool,
    /// What replaces it.
    similar: Vec<String>,
}

struct Found {
    product_id: ProductId,
    rank: i64,
}

pub(crate) async fn search(service: &Service, request: SearchProductsRequest) -> Result<SearchProductsResponse, Error> {
    let SearchProductsRequest { query, language, .. } = &request;
    let list = format!("products with {query:?} in {language}");
    let page = Page::<Key>::parse(request.page_size, &request.page_token, &list)?;
    // Searches take some of the sessions, so that lists do not wait for them.
    let permit = tokio::time::timeout(BEGINS_WITHIN, service.searches.acquire()).await;
    let _permit = permit.map_err(|_| chassis::Error::Overloaded)?.expect("the semaphore is never closed");

    let all_words = read_words(&service.lists, query, language).await?;
    for attempt in [Attempt::Whole, Attempt::WithoutStopWords, Attempt::Corrected] {
        // The pages of one search are those of one attempt.
        if page.after.is_some_and(|(of_page, ..)| of_page != attempt as u8) {
            continue;
        }
        let Some(words) = attempt.words(&service.lists, &all_words, language).await? else { continue };
        let mut found = find(&service.lists, &words, &request, &page).await?;
        if found.is_empty() {
            continue;
        }
        let next_page_token = page.cut(&mut found, |last| (attempt as u8, last.rank, last.product_id.0));
        let product_ids: Vec<_> = found.iter().map(|it| it.product_id).collect();
        let products = Product::find_in_order(&service.lists, &product_ids).await?;
        let replaced = words.into_iter().filter(|word| !word.similar.is_empty()).map(|word| word.text);
        let mut replaced_words: Vec<_> = replaced.collect();
        replaced_words.sort();
        return Ok(SearchProductsResponse { products, next_page_token, replaced_words });
    }
    Ok(SearchProductsResponse::default())
}

/// The words of a query, which have several stems if all languages are searched.
async fn read_words(db: &PgPool, query: &str, language: &str) -> Result<Vec<Word>, Error> {
    let dictionaries = DICTIONARIES.iter().filter(|(it, _)| language.is_empty() || *it == language);
    let dictionaries: Vec<_> = dictionaries.map(|(_, dictionary)| (*dictionary).to_owned()).collect();
    let rows = sqlx::query!(
        r#"with word as (
             select text, max(at) as at
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
    let words = rows.into_iter().map(|row| {
        let (text, stems, is_stop_word) = (row.text, row.stems, row.is_stop_word);
        Word { text, stems, is_stop_word, ..Word::default() }
    });
    let mut words: Vec<_> = words.collect();
    if let Some(last) = words.last_mut() {
        last.is_last = true;
    }
    Ok(words)
}

impl Attempt {
    /// The words to search for; none if that would not differ from the attempt before.
    async fn words(self, db: &PgPool, all: &[Word], language: &str) -> Result<Option<Vec<Word>>, Error> {
        let mut words = all.to_vec();
        if self != Self::Whole && all.iter().any(|word| !word.is_stop_word) {
            words.retain(|word| !word.is_stop_word);
        }
        let differs = match self {
            Self::Whole => !all.is_empty(),
            Self::WithoutStopWords => words.len() < all.len(),
            Self::Corrected => replace_unknown(db, &mut words, language).await?,
        };
        Ok(differs.then_some(words))
    }
}

/// Finds words of titles that are like those words that no product has. Returns whether there are any.
async fn replace_unknown(db: &PgPool, words: &mut [Word], language: &str) -> Result<bool, Error> {
    let replaceable = words.iter().filter(|word| word.text.chars().count() >= SHORTEST_REPLACED);
    let (texts, conditions): (Vec<_>, Vec<_>) = replaceable.map(|word| (word.text.clone(), word.condition())).unzip();
    let rows = sqlx::query!(
        r#"select wanted.word as "wanted!", alike.word as "word!"
           from unnest($1::text[], $2::text[]) as wanted (word, condition) cross join lateral (
             select word from (
               select word, similarity(word, wanted.word) as similarity from product_word where word % wanted.word
               order by 2 desc, 1 limit $4) as alike
             where exists (
               select from product where state = 'ACTIVE' and title_document @@ (quote_literal(word) || $3)::tsquery)
             order by similarity desc, word limit $5) as alike
           where not exists (
             select from product where state = 'ACTIVE' and document @@ (wanted.condition || $3)::tsquery)"#,
        &texts,
        &conditions,
        language_condition(language),
        ALIKE,
        SIMILAR,
    )
    .fetch_all(db)
    .await?;
    let mut similar = HashMap::<String, Vec<String>>::new();
    for row in rows {
        similar.entry(row.wanted).or_default().push(row.word);
    }
    for word in &mut *words {
        word.similar = similar.remove(&word.text).unwrap_or_default();
    }
    Ok(words.iter().any(|word| !word.similar.is_empty()))
}

/// The best matches that come after the last one of the page before.
async fn find(
    db: &PgPool,
    words: &[Word],
    request: &SearchProductsRequest,
    page: &Page<Key>,
) -> Result<Vec<Found>, Error> {
    let join = |conditions: Vec<String>, operator| conditions.join(operator);
    let all = join(words.iter().map(Word::condition).collect(), " & ") + &language_condition(&request.language);
    let any = join(words.iter().map(Word::condition).collect(), " | ");
    // Whole words count more than their beginnings.
    let exact = join(words.iter().map(|word| quote(&word.text)).collect(), " | ");
    let (_, rank, product_id) = page.after.unwrap_or((0, i64::MAX, Uuid::max()));
    let found = sqlx::query_file_as!(
        Found,
        "src/search.sql",
        all,
        MATCHING,
        LATEST,
        RANKED,
        request.query.trim().to_uppercase(),
        request.language,
        any,
        exact,
        rank,
        product_id,
        page.limit(),
    );
    Ok(found.fetch_all(db).await?)
}

impl Word {
    /// A `tsquery`: the word, in one of its forms.
    fn condition(&self) -> String {
        let is_beginning = self.is_last && self.text.chars().count() >= SHORTEST_BEGINNING;
        let mut forms = vec![quote(&self.text) + if is_beginning { ":*" } else { "" }];
        forms.extend(self.stems.iter().chain(&self.similar).filter(|it| **it != self.text).map(|it| quote(it)));
        format!("({})", forms.join(" | "))
    }
}

/// The end of a `tsquery` whose products have this language, which the trigger writes among their words.
fn language_condition(language: &str) -> String {
    if language.is_empty() { String::new() } else { format!(" & '={language}'") }
}

/// Words have no quotes; stems of some languages might.
fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}
