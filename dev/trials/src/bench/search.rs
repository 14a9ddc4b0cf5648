//! Full-text search over 100,000 products, which are written directly into the database: the times of SearchProducts at the role,
//! one request after another. Words are as frequent as in texts: a few are everywhere, most are rare.

use std::time::Instant;

use anyhow::{Result, ensure};
use contracts::souk::product::v1::SearchProductsRequest;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use super::layers::connect;
use super::{percentiles, with_stack};
use crate::roles;
use stack::controlled::Stack;
use stack::postgres::ADMINISTRATOR;

const PRODUCTS: usize = 100_000;
/// Are inserted by one statement.
const BATCH: usize = 5_000;
const WORDS: usize = 20_000;
const TITLE: usize = 4;
const DESCRIPTION: usize = 24;
/// The longest, of one product in ten.
const LONG_DESCRIPTION: usize = 500;
const DESCRIPTION_CHARACTERS: usize = 4_000;
/// So many of the oldest products have words that no newer one has.
const OLD: usize = 10_000;
const OLD_WORDS: usize = 20;
const REQUESTS: usize = 500;
const PAGE: i32 = 20;

pub async fn run() -> Result<()> {
    with_stack(measure).await
}

async fn measure(stack: &Stack) -> Result<()> {
    let mut random = StdRng::seed_from_u64(1);
    let vocabulary = Vocabulary::generate(&mut random);
    let begun = Instant::now();
    write_products(stack, &vocabulary, &mut random).await?;
    println!("{PRODUCTS} products were written in {:.0} s", begun.elapsed().as_secs_f64());
    println!("load average before: {}", std::fs::read_to_string("/proc/loadavg")?.trim());

    let mut client = connect(&roles::endpoint(&stack.layout.pki, "dev", stack.ports().grpc(roster::PRODUCT))?).await?;
    let (mut all, mut searches) = (Vec::new(), Vec::new());
    for kind in Kind::ALL {
        searches.extend((0..REQUESTS).map(|_| (kind, kind.query(&vocabulary, &mut random))));
    }
    // Opens connections, and reads the indexes once.
    for (kind, query) in &searches {
        let language = kind.language().to_owned();
        let search = SearchProductsRequest { query: query.clone(), page_size: PAGE, language, ..Default::default() };
        client.search_products(search).await?;
    }
    for kind in Kind::ALL {
        let (mut times, mut found) = (Vec::new(), 0);
        for (_, query) in searches.iter().filter(|it| it.0 == kind) {
            let language = kind.language().to_owned();
            let search =
                SearchProductsRequest { query: query.clone(), page_size: PAGE, language, ..Default::default() };
            let begun = Instant::now();
            let response = client.search_products(search).await?.into_inner();
            times.push(begun.elapsed());
            found += usize::from(!response.products.is_empty());
        }
        match kind {
            Kind::Unknown | Kind::OtherLanguage => ensure!(found == 0, "something is found: {}", kind.name()),
            Kind::ShortBeginnings | Kind::ManyFrequent => {}
            _ => ensure!(found > REQUESTS / 2, "hardly anything is found: {found} of {REQUESTS}, {}", kind.name()),
        }
        println!("{:45} {}", kind.name(), percentiles(&mut times));
        all.append(&mut times);
    }
    println!("{:45} {}", "all", percentiles(&mut all));
    Ok(())
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Word,
    Beginning,
    Two,
    Frequent,
    Old,
    Mistyped,
    Unknown,
    OtherLanguage,
    ShortBeginnings,
    ManyFrequent,
}

impl Kind {
    const ALL: [Self; 10] = [
        Self::Word,
        Self::Beginning,
        Self::Two,
        Self::Frequent,
        Self::Old,
        Self::Mistyped,
        Self::Unknown,
        Self::OtherLanguage,
        Self::ShortBeginnings,
        Self::ManyFrequent,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Word => "a word of a title",
            Self::Beginning => "the beginning of one",
            Self::Two => "two words of a title",
            Self::Frequent => "one of the ten most frequent words",
            Self::Old => "a word of old products only",
            Self::Mistyped => "a mistyped word",
            Self::Unknown => "what no product has",
            Self::OtherLanguage => "a frequent word, in another language",
            Self::ShortBeginnings => "sixteen beginnings of two letters",
            Self::ManyFrequent => "sixteen of the frequent words",
        }
    }

    /// All products are in English.
    fn language(self) -> &'static str {
        if self == Self::OtherLanguage { "fr" } else { "" }
    }

    fn query(self, vocabulary: &Vocabulary, random: &mut StdRng) -> String {
        match self {
            Self::Word => vocabulary.pick(random).to_owned(),
            Self::Beginning => vocabulary.pick(random).chars().take(4).collect(),
            Self::Two => {
                vocabulary.titles.choose(random).into_iter().flatten().take(2).cloned().collect::<Vec<_>>().join(" ")
            }
            Self::Frequent | Self::OtherLanguage => vocabulary.words[random.random_range(0..10)].clone(),
            Self::ShortBeginnings => SYLLABLES.sample(random, 16).copied().collect::<Vec<_>>().join(" "),
            Self::ManyFrequent => vocabulary.words[..20].sample(random, 16).cloned().collect::<Vec<_>>().join(" "),
            Self::Old => vocabulary.old[random.random_range(0..OLD_WORDS)].clone(),
            Self::Mistyped => {
                let mut letters: Vec<_> = vocabulary.pick(random).chars().collect();
                let at = random.random_range(1..letters.len());
                letters.insert(at, 'x');
                letters.into_iter().collect()
            }
            Self::Unknown => format!("{}{:x}", "q".repeat(12), random.random::<u32>()),
        }
    }
}

const SYLLABLES: [&str; 40] = [
    "ba", "be", "bo", "ca", "co", "da", "de", "di", "fa", "fi", "ga", "go", "ka", "ke", "la", "le", "li", "lo", "ma",
    "me", "mi", "na", "ne", "no", "pa", "pe", "pi", "ra", "re", "ri", "ro", "sa", "se", "so", "ta", "te", "ti", "va",
    "ve", "zo",
];

struct Vocabulary {
    /// The most frequent first.
    words: Vec<String>,
    old: Vec<String>,
    titles: Vec<Vec<String>>,
}

impl Vocabulary {
    fn generate(random: &mut StdRng) -> Self {
        let mut word = |syllables| (0..syllables).map(|_| *SYLLABLES.choose(random).expect("some")).collect::<String>();
        let words: Vec<_> = (0..WORDS).map(|at| word(2 + at % 4)).collect();
        let old = (0..OLD_WORDS).map(|at| format!("{}old{at}", word(2))).collect();
        let mut vocabulary = Self { words, old, titles: Vec::new() };
        for _ in 0..PRODUCTS {
            let title = (0..TITLE).map(|_| vocabulary.pick(random).to_owned()).collect();
            vocabulary.titles.push(title);
        }
        vocabulary
    }

    /// A word, as frequent as the law of Zipf has it.
    fn pick(&self, random: &mut StdRng) -> &str {
        let place = (self.words.len() as f64).powf(random.random::<f64>()) as usize;
        &self.words[place.min(self.words.len()) - 1]
    }
}

async fn write_products(stack: &Stack, vocabulary: &Vocabulary, random: &mut StdRng) -> Result<()> {
    let mut db = PgConnection::connect(&stack.layout.database(ADMINISTRATOR, "souk_product")?).await?;
    for (batch, titles) in vocabulary.titles.chunks(BATCH).enumerate() {
        let (mut ids, mut joined, mut descriptions) = (Vec::new(), Vec::new(), Vec::new());
        for (at, title) in titles.iter().enumerate() {
            ids.push(Uuid::now_v7());
            joined.push(title.join(" "));
            let length = if at % 10 == 0 { random.random_range(DESCRIPTION..LONG_DESCRIPTION) } else { DESCRIPTION };
            let mut words: Vec<_> = (0..length).map(|_| vocabulary.pick(random)).collect();
            while words.iter().map(|word| word.len() + 1).sum::<usize>() > DESCRIPTION_CHARACTERS {
                words.pop();
            }
            if batch * BATCH + at < OLD {
                words.push(&vocabulary.old[random.random_range(0..OLD_WORDS)]);
            }
            descriptions.push(words.join(" "));
        }
        sqlx::query(
            "insert into product (product_id, sku, title, description, language, currency, price_minor, state, version,
               created_at, updated_at)
             select id, 'SEARCH-' || upper(replace(id::text, '-', '')), title, description, 'en', 'EUR', 1250, 'ACTIVE', 1, now(), now()
             from unnest($1::uuid[], $2::text[], $3::text[]) as it (id, title, description)",
        )
        .bind(ids)
        .bind(joined)
        .bind(descriptions)
        .execute(&mut db)
        .await?;
    }
    sqlx::query("vacuum analyze").execute(&mut db).await?;
    Ok(db.close().await?)
}
