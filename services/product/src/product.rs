//! A product: its row, what makes a valid one, and how it looks to callers.

use chassis::rpc::update::etag;
use chassis::timestamp;
use contracts::money::Invalid;
use contracts::souk::product::v1 as proto;
use contracts::souk::r#type::v1::Money;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::error::{Error, Violation};

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Product {
    pub(crate) product_id: Uuid,
    pub(crate) sku: String,
    pub(crate) title: String,
    pub(crate) description: String,
    pub(crate) currency: String,
    pub(crate) price_minor: i64,
    pub(crate) state: String,
    pub(crate) version: i64,
    pub(crate) created_at: OffsetDateTime,
    pub(crate) updated_at: OffsetDateTime,
}

/// The contract says what an id looks like; this only turns it into one.
pub(crate) fn parse_id(text: &str, field: &str) -> Result<Uuid, Error> {
    Uuid::parse_str(text).map_err(|_| chassis::Error::field(field, "must be a UUID").into())
}

/// A price that may be asked: the error names which half of it is wrong.
pub(crate) fn parse_price(price: Option<Money>) -> Result<Money, Violation> {
    let price = price.ok_or_else(|| ("product.price", "is required".to_owned()))?;
    price.checked().map_err(|invalid| {
        let field = if invalid == Invalid::Currency { "product.price.currency" } else { "product.price.minor" };
        (field, invalid.to_string())
    })
}

impl Product {
    pub(crate) async fn insert(&self, db: &mut PgConnection) -> Result<(), Error> {
        sqlx::query!(
            "insert into product
               (product_id, sku, title, description, currency, price_minor, state, version, created_at, updated_at)
             values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
            self.product_id,
            self.sku,
            self.title,
            self.description,
            self.currency,
            self.price_minor,
            self.state,
            self.version,
            self.created_at,
            self.updated_at,
        )
        .execute(db)
        .await
        .map_err(chassis::rpc::error::on_constraint("product_sku", Error::SkuTaken { sku: self.sku.clone() }))?;
        Ok(())
    }

    pub(crate) async fn lock(db: &mut PgConnection, product_id: Uuid) -> Result<Option<Self>, Error> {
        let product = sqlx::query_as!(
            Self,
            "select product_id, sku, title, description, currency, price_minor, state, version, created_at, updated_at
             from product where product_id = $1 for update",
            product_id,
        )
        .fetch_optional(db)
        .await?;
        Ok(product)
    }

    pub(crate) async fn save(&mut self, db: &mut PgConnection, now: OffsetDateTime) -> Result<(), Error> {
        self.version += 1;
        self.updated_at = now;
        sqlx::query!(
            "update product set title = $2, description = $3, currency = $4, price_minor = $5, state = $6, version = $7,
               updated_at = $8
             where product_id = $1",
            self.product_id,
            self.title,
            self.description,
            self.currency,
            self.price_minor,
            self.state,
            self.version,
            self.updated_at,
        )
        .execute(db)
        .await?;
        Ok(())
    }

    pub(crate) fn is_archived(&self) -> bool {
        self.state == "ARCHIVED"
    }

    pub(crate) fn state(&self) -> proto::ProductState {
        if self.is_archived() { proto::ProductState::Archived } else { proto::ProductState::Active }
    }

    pub(crate) fn into_proto(self) -> proto::Product {
        let state = self.state().into();
        proto::Product {
            product_id: self.product_id.to_string(),
            sku: self.sku,
            title: self.title,
            description: self.description,
            price: Some(Money::new(self.currency, self.price_minor)),
            state,
            create_time: Some(timestamp(self.created_at)),
            update_time: Some(timestamp(self.updated_at)),
            etag: etag(self.version),
        }
    }
}
