//! The aggregate: what a product is, and how it is loaded and saved.

use std::collections::HashMap;

use chassis::rpc::error::Violation;
use chassis::rpc::update::etag;
use chassis::{Error, Id, Unexpected, timestamp};
use contracts::money::Invalid;
use contracts::souk::product::v1 as proto;
use contracts::souk::r#type::v1::Money;
use sqlx::{PgConnection, PgExecutor};
use time::OffsetDateTime;

use crate::category::CategoryId;

pub(crate) type ProductId = Id<Product>;

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Product {
    pub(crate) product_id: ProductId,
    pub(crate) sku: String,
    pub(crate) title: String,
    pub(crate) description: String,
    pub(crate) currency: String,
    pub(crate) price_minor: i64,
    pub(crate) category_id: Option<CategoryId>,
    /// Empty: none that search knows.
    pub(crate) language: String,
    /// Where images are, and what they show: as many of these as of those.
    pub(crate) image_urls: Vec<String>,
    pub(crate) image_alts: Vec<String>,
    pub(crate) state: State,
    pub(crate) version: i64,
    pub(crate) created_at: OffsetDateTime,
    pub(crate) updated_at: OffsetDateTime,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::Type)]
#[sqlx(type_name = "text", rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) enum State {
    Active,
    Archived,
}

impl State {
    /// Such as `ACTIVE`, in the table and in the contract.
    fn name(self) -> &'static str {
        self.to_proto().as_str_name().trim_start_matches("PRODUCT_STATE_")
    }

    pub(crate) fn to_proto(self) -> proto::ProductState {
        match self {
            Self::Active => proto::ProductState::Active,
            Self::Archived => proto::ProductState::Archived,
        }
    }
}

/// `field` is where the id stands in the request.
pub(crate) fn parse_id(text: &str, field: &str) -> Result<ProductId, Error> {
    ProductId::parse(text).ok_or_else(|| Error::field(field, "must be a UUID"))
}

pub(crate) fn parse_ids(texts: &[String]) -> Result<Vec<ProductId>, Error> {
    texts.iter().enumerate().map(|(at, text)| parse_id(text, &format!("product_ids[{at}]"))).collect()
}

/// The error names which half of a price is wrong.
pub(crate) fn parse_price(price: Option<Money>) -> Result<Money, Violation> {
    let price = price.ok_or_else(|| ("product.price".to_owned(), "is required".to_owned()))?;
    price.checked().map_err(|invalid| {
        let field = if invalid == Invalid::Currency { "product.price.currency" } else { "product.price.minor" };
        (field.to_owned(), invalid.to_string())
    })
}

impl Product {
    pub(crate) async fn insert(&self, db: &mut PgConnection) -> Result<(), Unexpected> {
        sqlx::query!(
            "insert into product
               (product_id, sku, title, description, currency, price_minor, category_id, language, image_urls, image_alts, state,
                version, created_at, updated_at)
             values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)",
            self.product_id as ProductId,
            self.sku,
            self.title,
            self.description,
            self.currency,
            self.price_minor,
            self.category_id as Option<CategoryId>,
            self.language,
            &self.image_urls,
            &self.image_alts,
            self.state.name(),
            self.version,
            self.created_at,
            self.updated_at,
        )
        .execute(db)
        .await?;
        Ok(())
    }

    /// Those of these products that are there. The limit makes Postgres expect few rows, so that it keeps a plan by the index,
    /// also from when the table was small.
    pub(crate) async fn find_all(db: impl PgExecutor<'_>, product_ids: &[ProductId]) -> Result<Vec<Self>, Unexpected> {
        let products = sqlx::query_as!(
            Self,
            r#"select product_id as "product_id: _", sku, title, description, currency, price_minor,
                 category_id as "category_id: _", language, image_urls, image_alts, state as "state: _", version, created_at, updated_at
               from (select id from unnest($1::uuid[]) as id limit cardinality($1)) as wanted
                 join product on product_id = wanted.id"#,
            product_ids as &[ProductId],
        );
        Ok(products.fetch_all(db).await?)
    }

    pub(crate) async fn lock(db: &mut PgConnection, product_id: ProductId) -> Result<Option<Self>, Unexpected> {
        let product = sqlx::query_as!(
            Self,
            r#"select product_id as "product_id: _", sku, title, description, currency, price_minor,
                 category_id as "category_id: _", language, image_urls, image_alts, state as "state: _", version, created_at, updated_at
               from product where product_id = $1 for update"#,
            product_id as ProductId,
        );
        Ok(product.fetch_optional(db).await?)
    }

    pub(crate) async fn save(&mut self, db: &mut PgConnection, now: OffsetDateTime) -> Result<(), Unexpected> {
        self.version += 1;
        self.updated_at = now;
        sqlx::query!(
            "update product set title = $2, description = $3, currency = $4, price_minor = $5, category_id = $6, language = $7,
               image_urls = $8, image_alts = $9, state = $10, version = $11, updated_at = $12
             where product_id = $1",
            self.product_id as ProductId,
            self.title,
            self.description,
            self.currency,
            self.price_minor,
            self.category_id as Option<CategoryId>,
            self.language,
            &self.image_urls,
            &self.image_alts,
            self.state.name(),
            self.version,
            self.updated_at,
        )
        .execute(db)
        .await?;
        Ok(())
    }

    /// Those of these products that are there, in this order.
    pub(crate) async fn find_in_order(
        db: impl PgExecutor<'_>,
        product_ids: &[ProductId],
    ) -> Result<Vec<proto::Product>, Unexpected> {
        let found = Self::find_all(db, product_ids).await?;
        let mut found: HashMap<_, _> = found.into_iter().map(|product| (product.product_id, product)).collect();
        Ok(product_ids.iter().filter_map(|product_id| found.remove(product_id)).map(Self::into_proto).collect())
    }

    pub(crate) fn into_proto(self) -> proto::Product {
        let images = self.image_urls.into_iter().zip(self.image_alts);
        proto::Product {
            product_id: self.product_id.to_string(),
            sku: self.sku,
            title: self.title,
            description: self.description,
            price: Some(Money::new(self.currency, self.price_minor)),
            state: self.state.to_proto().into(),
            create_time: Some(timestamp(self.created_at)),
            update_time: Some(timestamp(self.updated_at)),
            etag: etag(self.version),
            category_id: self.category_id.map(|it| it.to_string()).unwrap_or_default(),
            language: self.language,
            images: images.map(|(url, alt)| proto::Image { url, alt }).collect(),
        }
    }
}
