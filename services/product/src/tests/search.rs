use contracts::souk::product::v1::*;
use sqlx::PgPool;
use testkit::{fields, reason};
use tonic::Status;

use super::Fixture;
use super::create::mug;

impl Fixture {
    async fn search(&self, request: SearchProductsRequest) -> Result<SearchProductsResponse, Status> {
        Ok(self.client.clone().search_products(request).await?.into_inner())
    }

    /// The SKUs, best first, and the words that were replaced.
    async fn find(&self, query: &str, language: &str) -> (String, String) {
        let (query, language) = (query.to_owned(), language.to_owned());
        let request = SearchProductsRequest { query: query.clone(), language, ..Default::default() };
        let found = self.search(request).await.unwrap_or_else(|status| panic!("{query:?}: {status:?}"));
        let skus: Vec<_> = found.products.into_iter().map(|it| it.sku).collect();
        (skus.join(" "), found.replaced_words.join(" "))
    }

    async fn offer(&self, sku: &str, language: &str, title: &str, description: &str) -> Product {
        let (language, description) = (language.to_owned(), description.to_owned());
        self.create(Product { language, description, ..mug(sku, title) }).await.expect("created")
    }

    async fn shop(&self) {
        for (sku, language, title, description) in [
            ("TEA", "en", "Green tea", "Loose leaves from Shizuoka. Brew it at 80 degrees, in a mug."),
            ("MUG-BLUE", "en", "Blue mug", "Of stoneware, 300 ml. Dishwasher-safe."),
            ("MUG-RED", "en", "Red mug", "The red one of a pair."),
            ("TASSE", "de", "Blaue Tasse", "Aus Steingut, für Tee und Kaffee."),
            ("KANNE", "de", "Teekanne aus Glas", "Mit einem Sieb. Fasst 1,5 Liter."),
            ("MUESLI", "de", "Müsli mit Nüssen", "Ohne Zucker, für die Pause."),
            ("TASSE-FR", "fr", "Tasse à café", "En porcelaine de Limoges."),
            ("SAFFRON-1G", "en", "Saffron, 1 g", "Threads from Iran, www.example.com/saffron?x=1&y=2."),
            ("KNIFE", "en", "Chef's knife", "Forged steel; one of our sharpest knives."),
            ("DELUXE", "en", "Mug \u{1F375} deluxe", "With a lid."),
            ("MAP", "de", "Straßenkarte", "Maßstab 1:200.000"),
            ("CPP", "en", "C++ for cooks", "A book. The die is cast."),
            ("SAMOVAR", "", "Самовар", "Тульский самовар, 3 литра"),
            ("BOWL", "nl", "Kommen", "Twee kommen van hout"),
        ] {
            self.offer(sku, language, title, description).await;
        }
        let ghost = self.offer("GHOST", "en", "Blue ghost mug", "It is gone.").await;
        self.archive(&ghost.product_id).await.expect("archived");
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn odd_queries_are_answered(db: PgPool) {
    let fixture = Fixture::open(db).await;
    fixture.shop().await;
    let long = "mug ".repeat(50);
    let many = (0..40).map(|it| format!("w{it}")).collect::<Vec<_>>().join(" ");
    for (query, language, skus, replaced) in [
        // Words, their beginnings, capitals, and other forms of them.
        ("mug", "", "DELUXE MUG-RED MUG-BLUE TEA", ""),
        ("MUG", "", "DELUXE MUG-RED MUG-BLUE TEA", ""),
        ("mu", "", "MUESLI DELUXE MUG-RED MUG-BLUE TEA", ""),
        ("m", "", "", ""),
        ("mugs", "", "DELUXE MUG-RED MUG-BLUE TEA", ""),
        ("mugs", "en", "DELUXE MUG-RED MUG-BLUE TEA", ""),
        ("blue mug", "", "MUG-BLUE", ""),
        ("mug blue", "", "MUG-BLUE", ""),
        ("knives", "", "KNIFE", ""),
        ("knife", "", "KNIFE", ""),
        ("chefs knife", "", "KNIFE", ""),
        ("chef's knife", "", "KNIFE", ""),
        ("Tassen", "", "TASSE-FR TASSE", ""),
        ("Tassen", "de", "TASSE", ""),
        ("tasse", "fr", "TASSE-FR", ""),
        ("tasse cafe", "", "TASSE-FR", ""),
        ("café", "", "TASSE-FR", ""),
        ("kaffee", "", "TASSE", ""),
        ("kann", "", "KANNE", ""),
        ("Nuss", "", "MUESLI", ""),
        ("MÜSLI", "", "MUESLI", ""),
        ("straße", "", "MAP", ""),
        ("strassenkarte", "", "MAP", ""),
        ("самовар", "", "SAMOVAR", ""),
        ("САМОВ", "", "SAMOVAR", ""),
        ("kom", "nl", "BOWL", ""),
        // SKUs, numbers and addresses.
        ("SAFFRON-1G", "", "SAFFRON-1G", ""),
        ("saffron 1g", "", "SAFFRON-1G", ""),
        ("300", "", "MUG-BLUE", ""),
        ("1,5", "", "KANNE", ""),
        ("www.example.com", "", "SAFFRON-1G", ""),
        ("x=1&y=2", "", "SAFFRON-1G", ""),
        ("200.000", "", "MAP", ""),
        // Stop words.
        ("the mug", "", "DELUXE MUG-RED MUG-BLUE TEA", ""),
        ("a mug of stoneware", "en", "MUG-BLUE", ""),
        ("tee für die pause", "de", "", ""),
        ("the", "", "CPP MUG-RED", ""),
        ("die", "en", "CPP", ""),
        // Typing errors.
        ("saffran", "", "SAFFRON-1G", "saffran"),
        ("teekane", "", "KANNE", "teekane"),
        ("deluxxe mug", "", "DELUXE", "deluxxe"),
        ("musli", "", "MUESLI", ""),
        ("xylophone", "", "", ""),
        // What is no word.
        ("\u{1F375}", "", "", ""),
        ("mug \u{1F375}\u{1F375}", "", "DELUXE MUG-RED MUG-BLUE TEA", ""),
        ("c++", "", "CPP", ""),
        ("&", "", "", ""),
        ("'", "", "", ""),
        ("mug & !blue | (red", "", "", ""),
        ("mug:*", "", "DELUXE MUG-RED MUG-BLUE TEA", ""),
        ("mug:A <-> blue", "", "MUG-BLUE", ""),
        ("\\' or 1=1; drop table product --", "", "", ""),
        ("\"blue mug\"", "", "MUG-BLUE", ""),
        ("mug%_", "", "DELUXE MUG-RED MUG-BLUE TEA", ""),
        ("-mug", "", "DELUXE MUG-RED MUG-BLUE TEA", ""),
        ("   mug   ", "", "DELUXE MUG-RED MUG-BLUE TEA", ""),
        ("\u{202f}mug\u{3000}blue", "", "MUG-BLUE", ""),
        (long.trim(), "", "DELUXE MUG-RED MUG-BLUE TEA", ""),
        (many.as_str(), "", "", ""),
    ] {
        let found = fixture.find(query, language).await;
        assert_eq!((found.0.as_str(), found.1.as_str()), (skus, replaced), "{query:?} in {language:?}");
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_query_has_1_to_200_characters_that_show(db: PgPool) {
    let fixture = Fixture::open(db).await;
    for query in
        [String::new(), "x".repeat(201), "\u{1F375}".repeat(10_000), "mug\0".into(), "mug\nblue".into(), " ".into()]
    {
        let refused =
            fixture.search(SearchProductsRequest { query, ..Default::default() }).await.expect_err("not a query");
        assert_eq!(fields(&refused), ["query"], "{refused:?}");
    }
    let request = SearchProductsRequest { query: "mug".into(), language: "xx".into(), ..Default::default() };
    assert_eq!(fields(&fixture.search(request).await.expect_err("unknown")), ["language"]);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn pages_of_a_search_are_one_list_without_repeats(db: PgPool) {
    let fixture = Fixture::open(db).await;
    for number in 0..7 {
        fixture.offer(&format!("M-{number}"), "en", "Blue mug", &"More of it. ".repeat(number)).await;
    }
    for (query, replaced) in [("mug", 0), ("mugg", 1), ("mgu blue", 0)] {
        let whole = SearchProductsRequest { query: query.into(), page_size: 10, ..Default::default() };
        let whole = fixture.search(whole).await.expect("found");
        let (mut pages, mut page_token) = (Vec::new(), String::new());
        loop {
            let request = SearchProductsRequest { query: query.into(), page_size: 2, page_token, ..Default::default() };
            let page = fixture.search(request).await.expect("a page");
            assert_eq!(page.replaced_words.len(), replaced, "{query}");
            pages.extend(page.products);
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
        assert_eq!(pages, whole.products);
        assert_eq!(pages.len(), if query == "mgu blue" { 0 } else { 7 }, "{query}");
    }
    let first = SearchProductsRequest { query: "mug".into(), page_size: 2, ..Default::default() };
    let page_token = fixture.search(first).await.expect("a page").next_page_token;
    let other = SearchProductsRequest { query: "blue".into(), page_token, ..Default::default() };
    assert_eq!(reason(&fixture.search(other).await.expect_err("another list")), "PAGE_TOKEN_INVALID@souk.product");
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_change_is_found_at_once(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let product = fixture.offer("MUG", "en", "Blue mug", "").await;
    let wanted = Product { title: "Red cup".into(), etag: String::new(), ..product.clone() };
    fixture.update(wanted, &["title"]).await.expect("changed");
    assert_eq!(fixture.find("blue", "").await.0, "");
    assert_eq!(fixture.find("cup", "").await.0, "MUG");
    fixture.archive(&product.product_id).await.expect("archived");
    assert_eq!(fixture.find("cup", "").await.0, "");
}

/// The previous release knows neither languages nor documents.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn what_the_previous_release_writes_is_found(db: PgPool) {
    let fixture = Fixture::open(db.clone()).await;
    let insert = "insert into product (product_id, sku, title, description, currency, price_minor, state, version, created_at, updated_at)
        values (gen_random_uuid(), 'OLD', 'Old mug', '', 'EUR', 1, 'ACTIVE', 1, now(), now())";
    sqlx::query(insert).execute(&db).await.expect("inserted");
    assert_eq!(fixture.find("mug", "").await.0, "OLD");
    sqlx::query("update product set title = 'Old cup'").execute(&db).await.expect("updated");
    assert_eq!(fixture.find("cup", "").await.0, "OLD");
}

/// Of many matches some are ranked, and every word is found, also if the newest products do not have it.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn frequent_words_are_found_wherever_they_are(db: PgPool) {
    let fixture = Fixture::open(db.clone()).await;
    // Ids of version 7 begin with the time.
    let insert = "insert into product (product_id, sku, title, description, currency, price_minor, state, version, created_at, updated_at)
        select (lpad(to_hex(number), 12, '0') || '7000a0000000000000ff')::uuid, 'S-' || number,
          case when number <= 2100 then 'Old thing' else 'New thing' end, '', 'EUR', 1, 'ACTIVE', 1, now(), now()
        from generate_series(1, 6200) as number";
    sqlx::query(insert).execute(&db).await.expect("inserted");
    for (word, first) in [("thing", Some("S-6200")), ("new", Some("S-6200")), ("old", None)] {
        let (mut skus, mut page_token) = (Vec::new(), String::new());
        loop {
            let request =
                SearchProductsRequest { query: word.into(), page_size: 200, page_token, ..Default::default() };
            let page = fixture.search(request).await.expect("a page");
            skus.extend(page.products.into_iter().map(|it| it.sku));
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
        assert_eq!(skus.iter().collect::<std::collections::HashSet<_>>().len(), 500, "{word}");
        assert!(first.is_none_or(|first| skus[0] == first), "{word}: {}", skus[0]);
    }
}
