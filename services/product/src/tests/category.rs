use contracts::souk::product::v1::*;
use prost_types::FieldMask;
use sqlx::PgPool;
use testkit::{fields, reason};
use tonic::Status;
use uuid::Uuid;

use super::Fixture;
use super::create::mug;
use crate::category::DEEPEST;

impl Fixture {
    pub(super) async fn create_category(&self, name: &str, parent_id: &str) -> Result<Category, Status> {
        let category = Category { name: name.into(), parent_id: parent_id.into(), ..Default::default() };
        let request = self.kit.operator(CreateCategoryRequest { category: Some(category) });
        Ok(self.client.clone().create_category(request).await?.into_inner().category.expect("a category"))
    }

    /// The id of a new category.
    pub(super) async fn category(&self, name: &str, parent_id: &str) -> String {
        self.create_category(name, parent_id).await.expect("created").category_id
    }

    async fn update_category(&self, category: Category, paths: &[&str]) -> Result<Category, Status> {
        let paths = paths.iter().map(|path| (*path).to_owned()).collect();
        let update_mask = Some(FieldMask { paths });
        let request = self.kit.operator(UpdateCategoryRequest { category: Some(category), update_mask });
        Ok(self.client.clone().update_category(request).await?.into_inner().category.expect("a category"))
    }

    async fn move_category(&self, category_id: &str, parent_id: &str) -> Result<Category, Status> {
        let (category_id, parent_id) = (category_id.to_owned(), parent_id.to_owned());
        self.update_category(Category { category_id, parent_id, ..Default::default() }, &["parent_id"]).await
    }

    async fn category_names(&self, parent_id: &str, page_size: i32) -> Vec<String> {
        let (mut names, mut page_token) = (Vec::new(), String::new());
        loop {
            let request = ListCategoriesRequest { page_size, page_token, parent_id: parent_id.into() };
            let page = self.client.clone().list_categories(request).await.expect("public").into_inner();
            names.extend(page.categories.into_iter().map(|it| it.name));
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return names;
            }
        }
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn categories_are_a_tree_that_operators_make_and_anybody_reads(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let kitchen = fixture.category("Kitchen", "").await;
    for name in ["Mugs", "Plates", "Bowls"] {
        fixture.category(name, &kitchen).await;
    }
    fixture.category("Mugs", "").await;
    assert_eq!(fixture.category_names("", 2).await, ["Bowls", "Kitchen", "Mugs", "Mugs", "Plates"]);
    assert_eq!(fixture.category_names(&kitchen, 2).await, ["Bowls", "Mugs", "Plates"]);
    for parent_id in ["", &kitchen] {
        let taken = fixture.create_category("Mugs", parent_id).await.expect_err("taken");
        assert_eq!(reason(&taken), "CATEGORY_NAME_TAKEN@souk.product");
    }
    let request = fixture.kit.customer(Uuid::now_v7(), CreateCategoryRequest::default());
    let refused = fixture.client.clone().create_category(request).await.expect_err("not an operator");
    assert_eq!(reason(&refused), "PERMISSION_DENIED@souk.product");
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn what_is_wrong_with_a_category_is_named(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let unnamed = fixture.create_category("", "").await.expect_err("no name");
    assert_eq!(fields(&unnamed), ["category.name"]);
    let orphan = fixture.create_category("Mugs", &Uuid::now_v7().to_string()).await.expect_err("no parent");
    assert_eq!(
        (reason(&orphan).as_str(), fields(&orphan)),
        ("CATEGORY_UNKNOWN@souk.product", vec!["category.parent_id".into()])
    );
    let category_id = Uuid::now_v7().to_string();
    let unknown = fixture.move_category(&category_id, "").await.expect_err("unknown");
    assert_eq!(reason(&unknown), "CATEGORY_NOT_FOUND@souk.product");
    let product = Product { category_id, ..mug("MUG-1", "Mug") };
    let refused = fixture.create(product.clone()).await.expect_err("unknown category");
    assert_eq!(
        (reason(&refused).as_str(), fields(&refused)),
        ("CATEGORY_UNKNOWN@souk.product", vec!["product.category_id".into()])
    );
    let created = fixture.create(mug("MUG-1", "Mug")).await.expect("without one");
    let product = Product { product_id: created.product_id, etag: String::new(), ..product };
    let refused = fixture.update(product, &["category_id"]).await.expect_err("unknown category");
    assert_eq!(fields(&refused), ["product.category_id"]);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_category_is_renamed_and_moved_with_what_is_below_it(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let (kitchen, table) = (fixture.category("Kitchen", "").await, fixture.category("Table", "").await);
    let mugs = fixture.category("Mugs", &kitchen).await;
    fixture.category("Blue", &mugs).await;
    let moved = fixture.move_category(&mugs, &table).await.expect("moved");
    assert_eq!((moved.parent_id.as_str(), moved.etag.as_str()), (table.as_str(), "v2"));
    assert_eq!(fixture.move_category(&mugs, &table).await.expect("it is there").etag, "v2", "nothing changed");
    assert_eq!(fixture.category_names(&table, 0).await, ["Mugs"]);
    assert_eq!(fixture.category_names(&mugs, 0).await, ["Blue"]);
    let renamed = Category { name: "Cups".into(), etag: "v1".into(), ..moved };
    let stale = fixture.update_category(renamed.clone(), &["name"]).await.expect_err("the etag is old");
    assert_eq!(reason(&stale), "ETAG_MISMATCH@souk.product");
    let renamed = fixture.update_category(Category { etag: "v2".into(), ..renamed }, &["name"]).await.expect("renamed");
    assert_eq!((renamed.name.as_str(), renamed.parent_id.as_str()), ("Cups", table.as_str()));
    assert_eq!(fixture.move_category(&mugs, "").await.expect("to the top").parent_id, "");
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_move_makes_no_cycle(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let a = fixture.category("A", "").await;
    let b = fixture.category("B", &a).await;
    let c = fixture.category("C", &b).await;
    for below in [&a, &b, &c] {
        let refused = fixture.move_category(&a, below).await.expect_err("a cycle");
        assert_eq!(reason(&refused), "CATEGORY_CYCLE@souk.product");
    }
}

/// Each alone is legal, and both together would be a cycle.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn of_two_moves_at_once_that_make_a_cycle_one_is_refused(db: PgPool) {
    let fixture = Fixture::open(db).await;
    for round in 0..5 {
        let (a, b) = (format!("A{round}"), format!("B{round}"));
        let (a, b) = (fixture.category(&a, "").await, fixture.category(&b, "").await);
        let (one, other) = tokio::join!(fixture.move_category(&a, &b), fixture.move_category(&b, &a));
        assert_eq!([&one, &other].iter().filter(|it| it.is_ok()).count(), 1);
        assert_eq!(reason(&one.err().or(other.err()).expect("one lost")), "CATEGORY_CYCLE@souk.product");
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn the_tree_is_not_deeper_than_ten_levels(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let top = fixture.category("1", "").await;
    let mut deepest = top.clone();
    for level in 2..=DEEPEST {
        deepest = fixture.category(&level.to_string(), &deepest).await;
    }
    let refused = fixture.create_category("11", &deepest).await.expect_err("too deep");
    assert_eq!(reason(&refused), "CATEGORY_TOO_DEEP@souk.product");
    let other = fixture.category("other", "").await;
    let refused = fixture.move_category(&top, &other).await.expect_err("what is below counts");
    assert_eq!(reason(&refused), "CATEGORY_TOO_DEEP@souk.product");
}
