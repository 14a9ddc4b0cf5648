use std::collections::BTreeSet;

use contracts::souk::product::v1::*;
use sqlx::types::JsonValue as Value;
use sqlx::{AssertSqlSafe, PgPool, Row};
use testkit::{fields, reason};
use tonic::Status;
use uuid::Uuid;

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
            ("COAT", "en", "Winter coat", "Of wool."),
            ("HAT", "en", "Winter hat", "Of wool."),
            ("KNOB", "en", "Door handle", "Of brass."),
            ("PULL", "en", "Drawer handle", "Of brass."),
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
    let (long, mut wrong) = ("mug ".repeat(50), Vec::new());
    let many = (0..40).map(|it| format!("w{it}")).collect::<Vec<_>>().join(" ");
    for (query, language, skus, replaced) in [
        // Words, their beginnings, capitals, and other forms of them.
        ("mug", "", "MUG-RED MUG-BLUE DELUXE TEA", ""),
        ("MUG", "", "MUG-RED MUG-BLUE DELUXE TEA", ""),
        ("mu", "", "MUESLI MUG-RED MUG-BLUE DELUXE TEA", ""),
        ("m", "", "", ""),
        ("mugs", "", "MUG-RED MUG-BLUE DELUXE TEA", ""),
        ("mugs", "en", "MUG-RED MUG-BLUE DELUXE TEA", ""),
        ("blue mug", "", "MUG-BLUE", ""),
        ("mug blue", "", "MUG-BLUE", ""),
        ("blue mu", "", "MUG-BLUE", ""),
        ("blu mug", "", "MUG-BLUE", "blu"),
        ("knives", "", "KNIFE", ""),
        ("knife", "", "KNIFE", ""),
        ("chefs knife", "", "KNIFE", ""),
        ("chef's knife", "", "KNIFE", ""),
        ("Tassen", "", "TASSE TASSE-FR", ""),
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
        ("the mug", "", "MUG-RED", ""),
        ("that mug", "", "MUG-RED MUG-BLUE DELUXE TEA", ""),
        ("winter hat", "", "HAT", ""),
        ("door handle", "", "KNOB", ""),
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
        ("mug \u{1F375}\u{1F375}", "", "MUG-RED MUG-BLUE DELUXE TEA", ""),
        ("c++", "", "CPP", ""),
        ("&", "", "", ""),
        ("'", "", "", ""),
        ("mug & !blue | (red", "", "", ""),
        ("mug:*", "", "MUG-RED MUG-BLUE DELUXE TEA", ""),
        ("mug:A <-> blue", "", "MUG-BLUE", ""),
        ("\\' or 1=1; drop table product --", "", "", ""),
        ("\"blue mug\"", "", "MUG-BLUE", ""),
        ("mug%_", "", "MUG-RED MUG-BLUE DELUXE TEA", ""),
        ("-mug", "", "MUG-RED MUG-BLUE DELUXE TEA", ""),
        ("   mug   ", "", "MUG-RED MUG-BLUE DELUXE TEA", ""),
        ("\u{202f}mug\u{3000}blue", "", "MUG-BLUE", ""),
        (long.trim(), "", "MUG-RED MUG-BLUE DELUXE TEA", ""),
        (many.as_str(), "", "", ""),
    ] {
        let found = fixture.find(query, language).await;
        if (found.0.as_str(), found.1.as_str()) != (skus, replaced) {
            wrong.push(format!("{query:?} in {language:?}: {found:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
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

/// A word of a title that nobody can buy is not known: neither is it right, nor does it replace another.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_mistyped_title_does_not_keep_its_word_from_being_replaced(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let mistyped = fixture.offer("TEA", "en", "Jasmin taeleaves", "").await;
    let wanted = Product { title: "Jasmin tealeaves".into(), etag: String::new(), ..mistyped };
    fixture.update(wanted, &["title"]).await.expect("changed");
    let ghost = fixture.offer("GHOST", "en", "Jasminx", "").await;
    fixture.archive(&ghost.product_id).await.expect("archived");
    assert_eq!(fixture.find("taeleaves", "").await, ("TEA".into(), "taeleaves".into()));
    assert_eq!(fixture.find("jasminx tealeaves", "").await, ("TEA".into(), "jasminx".into()));
    assert_eq!(fixture.find("tealeaves", "fr").await, Default::default(), "there is none of this language");
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_title_that_matches_is_found_whatever_newer_descriptions_have(db: PgPool) {
    let fixture = Fixture::open(db.clone()).await;
    fixture.offer("OLD", "en", "Kettle", "").await;
    fixture.offer("KETTLE", "en", "Pot", "").await;
    write_products(&db, 3_000, "'Lid'", "'For any kettle.'").await;
    let found = fixture.find("kettle", "").await.0;
    assert_eq!(found.split(' ').take(2).collect::<Vec<_>>(), ["KETTLE", "OLD"], "the SKU, then the title");
    write_products(&db, 3_000, "'Kettle'", "''").await;
    assert!(fixture.find("kettle", "").await.0.starts_with("KETTLE S-6000 "));
    assert!(fixture.find("kettle", "en").await.0.starts_with("KETTLE OLD"), "the others have no language");
}

/// Products whose ids begin with the time, as all of version 7 do.
async fn write_products(db: &PgPool, count: i32, title: &str, description: &str) {
    let insert = format!(
        "insert into product (product_id, sku, title, description, currency, price_minor, state, version, created_at, updated_at)
         select (lpad(to_hex(2000000000000 + number), 12, '0') || '7000a0000000000000ff')::uuid, 'S-' || number, {title}, {description},
           'EUR', 1, 'ACTIVE', 1, now(), now()
         from (select count(*) from product where sku like 'S-%') as before,
           lateral generate_series(before.count + 1, before.count + {count}) as number"
    );
    sqlx::query(AssertSqlSafe(insert)).execute(db).await.expect("inserted");
}

/// Of many matches some are ranked, and every word is found, also if the newest products do not have it.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn frequent_words_are_found_wherever_they_are(db: PgPool) {
    let fixture = Fixture::open(db.clone()).await;
    write_products(&db, 6_200, "case when number <= 2100 then 'Old thing' else 'New thing' end", "''").await;
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

/// How many rows of the table were read, and by which indexes.
async fn cost(fixture: &Fixture, condition: &str) -> (i64, BTreeSet<String>) {
    fn walk(node: &Value, rows: &mut f64, indexes: &mut BTreeSet<String>) {
        assert_ne!(node["Node Type"], "Seq Scan", "{node}");
        if node["Relation Name"] == "product" {
            let read =
                node["Actual Rows"].as_f64().unwrap_or(0.0) + node["Rows Removed by Filter"].as_f64().unwrap_or(0.0);
            let rechecked = node["Rows Removed by Index Recheck"].as_f64().unwrap_or(0.0);
            *rows += (read + rechecked) * node["Actual Loops"].as_f64().expect("it was executed");
        }
        if node["Actual Loops"] != 0 {
            indexes.extend(node["Index Name"].as_str().map(str::to_owned));
        }
        node["Plans"].as_array().into_iter().flatten().for_each(|it| walk(it, rows, indexes));
    }
    let sql = format!("explain (analyze, format json) {}", include_str!("../search.sql"));
    let plan = sqlx::query(AssertSqlSafe(sql)).bind(condition).bind(1_000_i64).bind(1_000_i64).bind(500_i64);
    let plan = plan.bind("").bind("").bind(condition).bind(condition).bind(i64::MAX).bind(Uuid::max()).bind(51_i64);
    let plan: Value = plan.fetch_one(&fixture.service.lists).await.expect("a plan").get(0);
    let (mut rows, mut indexes) = (0.0, BTreeSet::new());
    walk(&plan[0]["Plan"], &mut rows, &mut indexes);
    (rows as i64, indexes)
}

/// On the sessions that serve it.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_search_reads_a_bounded_number_of_products_by_its_indexes(db: PgPool) {
    let fixture = Fixture::open(db.clone()).await;
    // As long as descriptions are: reading a tiny table is not worth an index.
    let description = "'Often' || case when number = 7 then ' rare' else '' end || repeat(' word', 100)";
    write_products(&db, 8_000, "'Thing'", description).await;
    sqlx::query("analyze product").execute(&db).await.expect("analysed");
    let (titles, all, newest) = ("product_by_title_document", "product_by_document", "product_id");
    for (condition, most, expected) in [
        ("'rare'", 1, &[titles, all][..]),
        ("'often'", 1_501, &[titles, all, newest]),
        ("'thing'", 1_501, &[titles, newest]),
        ("'often' & '=fr'", 0, &[titles, all]),
        ("'of':* & 'thing'", 1_501, &[titles, all, newest]),
        ("'nothing'", 0, &[titles, all]),
    ] {
        let (rows, indexes) = cost(&fixture, condition).await;
        assert!(rows <= most, "{condition}: {rows} rows");
        assert!(expected.iter().all(|it| indexes.contains(*it)), "{condition}: {indexes:?}");
    }
}
