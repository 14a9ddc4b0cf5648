//! `souk product import`, without the edge: lines of a file become calls of the real service.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use contracts::souk::product::v1::*;
use sqlx::PgPool;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use super::Fixture;
use crate::import::edge::{paths, repeat};
use crate::import::line::{Categories, Columns};
use crate::import::report::Report;
use crate::import::send::send;

const HEADER: &str =
    "sku,title,description,currency,price_minor,language,category,image_url,image_alt,image_url,image_alt\n";
const AT_ONCE: usize = 8;

fn read(file: &[u8]) -> csv::Reader<&[u8]> {
    csv::ReaderBuilder::new().flexible(true).from_reader(file)
}

impl Fixture {
    async fn import(&self, file: &[u8], validate_only: bool) -> Report {
        let mut reader = read(file);
        let columns = Columns::read(&mut reader).expect("columns");
        let request = ListCategoriesRequest { page_size: 200, ..Default::default() };
        let categories = self.client.clone().list_categories(request).await.expect("public").into_inner();
        let create = |product| {
            let request = self.kit.operator(CreateProductRequest { product: Some(product), validate_only });
            let mut client = self.client.clone();
            async move { client.create_product(request).await.map(drop) }
        };
        send(reader, &columns, &paths(&categories.categories), AT_ONCE, |_| {}, create).await
    }
}

async fn count(db: &PgPool) -> i64 {
    sqlx::query_scalar("select count(*) from product").fetch_one(db).await.expect("counted")
}

/// A thousand lines, after the line of names. Some have something wrong.
fn thousand_lines() -> Vec<u8> {
    let mut file = HEADER.as_bytes().to_vec();
    for line in 2..=1_001 {
        let text = match line {
            10 => "S-10,,,EUR,100,,,,,,",
            100 => "S-100,Mug,,EUR,1.50,,,,,,",
            200 => "S-200,Mug,,EUR,100,tlh,,,,,",
            300 => "S-300,Mug,,EUR,0,,,,,,",
            400 => "S-400,Mug,,EUR,100,,Kitchen > Cups,,,,",
            500 => "S-500,Mug,,EUR,100,,,https://example.com/a,A mug,http://example.com/b,Its bottom",
            600 => "S-600,Mug",
            700 => "S-7,Mug,,EUR,100,,,,,,",
            800 => "not a sku,Mug,,EUR,100,,,,,,",
            900 => "S-900,\"Mug, \"\"big\"\"\",\"Two\nlines\",EUR,100,en,Kitchen > Mugs,https://example.com/a,A mug,,",
            line => &format!("S-{line},Mug {line},Of stoneware.,EUR,{line},en,Kitchen > Mugs,,,,"),
        };
        file.extend(text.as_bytes());
        file.push(b'\n');
        if line == 950 {
            file.extend(b"S-LATIN,M\xfcsli,,EUR,100,,,,,,\n");
        }
    }
    file
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_file_is_checked_imported_and_imported_again(db: PgPool) {
    let fixture = Fixture::open(db.clone()).await;
    let kitchen = fixture.category("Kitchen", "").await;
    let mugs = fixture.category("Mugs", &kitchen).await;
    let file = thousand_lines();
    let wrong = "line 10, \"S-10\": title: is required
line 100, \"S-100\": price_minor: must be a number without a decimal point
line 200, \"S-200\": language: must match the pattern `^(de|en|es|fr|it|nl)$`
line 300, \"S-300\": price_minor: must be 1 to 99999999
line 400, \"S-400\": category: there is no such category
line 500, \"S-500\": image_url 2: must match the pattern
line 600, \"S-600\": line: there are 2 values for 11 columns
line 700, \"S-7\": sku: line 7 has the same
line 800, \"not a sku\": sku: must match the pattern
line 952, \"\": line: is not UTF-8";
    let check = |report: &Report, created: u64, existed: u64| {
        assert_eq!((report.created, report.existed, report.wrong, &report.stopped), (created, existed, 10, &None));
        let text = report.to_string();
        for (line, expected) in text.lines().zip(wrong.lines()) {
            let (place, expected) = (expected.split(": ").take(2).collect::<Vec<_>>().join(": "), expected);
            assert!(line.starts_with(&place), "{line}, expected {expected}");
        }
        assert_eq!(text.lines().count(), 11, "{text}");
        println!("{text}");
    };
    check(&fixture.import(&file, true).await, 991, 0);
    assert_eq!(count(&db).await, 0, "a dry run creates nothing");
    check(&fixture.import(&file, false).await, 991, 0);
    check(&fixture.import(&file, false).await, 0, 991);
    check(&fixture.import(&file, true).await, 0, 991);
    assert_eq!(count(&db).await, 991);

    let request = SearchProductsRequest { query: "S-900".into(), ..Default::default() };
    let found = fixture.client.clone().search_products(request).await.expect("public").into_inner().products;
    let product = found.into_iter().find(|it| it.sku == "S-900").expect("it was imported");
    assert_eq!((product.title.as_str(), product.description.as_str()), ("Mug, \"big\"", "Two\nlines"));
    assert_eq!((product.category_id, product.images.len()), (mugs, 1));
}

/// The service is away after 300 calls; what was imported before stays, and the rest follows.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn an_import_that_was_stopped_continues(db: PgPool) {
    let fixture = Fixture::open(db.clone()).await;
    let mut file = b"sku,title,currency,price_minor\n".to_vec();
    file.extend((0..500).flat_map(|number| format!("S-{number},Mug,EUR,100\n").into_bytes()));
    let (calls, running) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let most = Arc::new(AtomicUsize::new(0));
    let create = |product| {
        let request = fixture.kit.operator(CreateProductRequest { product: Some(product), validate_only: false });
        let (mut client, calls) = (fixture.client.clone(), calls.clone());
        let (running, most) = (running.clone(), most.clone());
        async move {
            most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            let created = match calls.fetch_add(1, Ordering::SeqCst) {
                0..300 => client.create_product(request).await.map(drop),
                _ => Err(Status::unavailable("it is away")),
            };
            running.fetch_sub(1, Ordering::SeqCst);
            created
        }
    };
    let mut reader = read(&file);
    let columns = Columns::read(&mut reader).expect("columns");
    let report = send(reader, &columns, &Categories::new(), AT_ONCE, |_| {}, create).await;
    assert_eq!((report.created, count(&db).await), (300, 300));
    assert!(report.stopped.as_deref().is_some_and(|why| why.contains("it is away")), "{report}");
    assert!(calls.load(Ordering::SeqCst) <= 300 + AT_ONCE, "it stops soon");
    assert_eq!(most.load(Ordering::SeqCst), AT_ONCE, "so many at once");
    let report = fixture.import(&file, false).await;
    assert_eq!((report.created, report.existed, report.is_complete()), (200, 300, true));
    assert_eq!(count(&db).await, 500);
}

/// A call that failed is known when the next one is due, which is not made then.
#[tokio::test]
async fn nothing_is_called_after_a_failure() {
    let calls = AtomicUsize::new(0);
    let create = |_| {
        calls.fetch_add(1, Ordering::SeqCst);
        std::future::ready(Err(Status::unavailable("it is away")))
    };
    let mut reader = read(b"sku,title,currency,price_minor\nS-1,Mug,EUR,100\nS-2,Mug,EUR,100\nS-3,Mug,EUR,100\n");
    let columns = Columns::read(&mut reader).expect("columns");
    let report = send(reader, &columns, &Categories::new(), 1, |_| {}, create).await;
    assert!(report.stopped.as_deref().is_some_and(|why| why.starts_with("line 2: ")), "{report}");
    assert_eq!(calls.into_inner(), 1);
}

#[test]
fn what_is_wrong_with_columns_is_named() {
    for (names, why) in [
        ("", "the column `sku` is missing"),
        ("sku,title,currency", "the column `price_minor` is missing"),
        ("sku,title,currency,price_minor,colour", "there is no column `colour`"),
        ("sku,title,currency,price_minor,sku", "the column `sku` is there twice"),
        ("sku,title,currency,price_minor,image_url", "each image_url needs an image_alt"),
        ("sku;title;currency;price_minor", "there is no column `sku;title;currency;price_minor`"),
    ] {
        let refused = Columns::read(&mut read(names.as_bytes())).expect_err(names);
        assert!(refused.starts_with(why), "{names}: {refused}");
    }
    let marked = "\u{feff}price_minor, title ,currency,sku\n";
    assert!(!Columns::read(&mut read(marked.as_bytes())).expect("in any order").has_category());
}

/// All are counted, and the first hundred are named.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_file_that_is_all_wrong_gives_a_short_report(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let file = format!("sku,title,currency,price_minor\n{}", "x,Mug,EUR,1\n".repeat(300));
    let report = fixture.import(file.as_bytes(), false).await;
    assert_eq!((report.wrong, report.lines.len(), report.created), (300, 100, 0));
    assert!(report.to_string().contains("and 200 further lines"), "{report}");
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_call_that_only_validates_creates_nothing(db: PgPool) {
    let fixture = Fixture::open(db.clone()).await;
    let call = async |product: Product| {
        let request = fixture.kit.operator(CreateProductRequest { product: Some(product), validate_only: true });
        fixture.client.clone().create_product(request).await.map(|it| it.into_inner().product.expect("a product"))
    };
    let valid = call(super::create::mug("MUG-1", "Mug")).await.expect("valid");
    assert_eq!((valid.sku.as_str(), valid.product_id.as_str(), valid.etag.as_str()), ("MUG-1", "", ""));
    assert_eq!(count(&db).await, 0);
    fixture.create(super::create::mug("MUG-1", "Mug")).await.expect("created");
    assert_eq!(call(super::create::mug("MUG-1", "Mug")).await.expect_err("taken").code(), Code::AlreadyExists);
}

/// A name may have what separates names in a path.
#[test]
fn a_path_of_two_categories_is_refused() {
    let category = |category_id: &str, parent_id: &str, name: &str| Category {
        category_id: category_id.to_owned(),
        parent_id: parent_id.to_owned(),
        name: name.to_owned(),
        ..Default::default()
    };
    let categories = [category("a", "", "Kitchen"), category("b", "a", "Mugs"), category("c", "", "Kitchen > Mugs")];
    let mut file =
        read(b"sku,title,currency,price_minor,category\nS-1,Mug,EUR,1,Kitchen > Mugs\nS-2,Mug,EUR,1,Kitchen\n");
    let columns = Columns::read(&mut file).expect("columns");
    let products: Vec<_> =
        file.records().map(|line| columns.parse(&line.expect("a line"), &paths(&categories))).collect();
    let wrong = ("category".to_owned(), "several categories have this path".to_owned());
    assert_eq!(products[0].as_ref().expect_err("which?"), &vec![wrong]);
    assert_eq!(products[1].as_ref().expect("one").category_id, "a");
}

/// A status of the edge.
fn with_reason(code: Code, reason: &str) -> Status {
    Status::with_error_details(code, "", ErrorDetails::with_error_info(reason, "souk.edge", []))
}

/// How often a call is made that ends so at first.
async fn calls_after(first: Status) -> usize {
    let calls = AtomicUsize::new(0);
    let response = repeat(|| {
        let (call, first) = (calls.fetch_add(1, Ordering::Relaxed), first.clone());
        async move { if call == 0 { Err(first) } else { Ok(()) } }
    });
    let response = response.await;
    assert_eq!(response.is_ok(), calls.load(Ordering::Relaxed) > 1, "{first:?}");
    calls.load(Ordering::Relaxed)
}

#[tokio::test]
async fn a_call_is_repeated_unless_the_same_would_follow() {
    // Without a reason, these are our client's: its time was up, or the connection broke.
    for code in [Code::Unavailable, Code::DeadlineExceeded, Code::Cancelled, Code::Unknown, Code::Internal] {
        assert_eq!(calls_after(Status::new(code, "")).await, 2, "{code:?}");
    }
    assert_eq!(calls_after(with_reason(Code::ResourceExhausted, "RATE_LIMITED")).await, 2);
    for (code, reason) in [
        (Code::PermissionDenied, "NOT_PERMITTED"),
        (Code::Internal, "INTERNAL"),
        (Code::ResourceExhausted, "BODY_TOO_LARGE"),
    ] {
        assert_eq!(calls_after(with_reason(code, reason)).await, 1, "{reason}");
    }
}

/// The edge refuses it each time, but not the other lines.
#[tokio::test]
async fn a_line_that_is_too_large_is_wrong_and_the_others_are_imported() {
    let mut reader = read(b"sku,title,currency,price_minor\nS-1,Mug,EUR,1\nS-2,Mug,EUR,1\n");
    let columns = Columns::read(&mut reader).expect("columns");
    let create = |product: Product| async move {
        if product.sku == "S-1" { Err(with_reason(Code::ResourceExhausted, "BODY_TOO_LARGE")) } else { Ok(()) }
    };
    let report = send(reader, &columns, &Categories::new(), AT_ONCE, |_| {}, create).await;
    assert_eq!((report.created, report.wrong, &report.stopped), (1, 1, &None));
    assert!(report.to_string().contains("is too large"), "{report}");
}
