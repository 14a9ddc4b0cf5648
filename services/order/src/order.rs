//! The aggregate: what an order is, what a fact changes, and how it is loaded and saved.

use chassis::boot::db::column;
use chassis::{Owner, Unexpected, timestamp};
use contracts::event::Event as _;
use contracts::souk::order::v1 as proto;
use contracts::souk::r#type::v1::Money;
use sqlx::PgConnection;
use time::OffsetDateTime;

use crate::fact::Fact;
use crate::ids::{OrderId, PaymentId, ProductId, UserId};
use crate::parcel::Shipment;
use crate::state::State;

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Order {
    pub(crate) order_id: OrderId,
    pub(crate) user_id: UserId,
    pub(crate) state: State,
    pub(crate) version: i64,
    pub(crate) currency: String,
    pub(crate) total_minor: i64,
    pub(crate) payment_method: String,
    pub(crate) payment_id: Option<PaymentId>,
    pub(crate) captured: bool,
    pub(crate) refunded_minor: i64,
    /// The reason of its terminal state. Empty otherwise.
    pub(crate) exit_reason: String,
    /// Of the newest shipment.
    pub(crate) carrier: String,
    pub(crate) tracking_number: String,
    /// How many returns there were.
    pub(crate) returns: i32,
    pub(crate) expires_at: OffsetDateTime,
    pub(crate) created_at: OffsetDateTime,
    pub(crate) updated_at: OffsetDateTime,
    pub(crate) lines: Vec<Line>,
    pub(crate) shipments: Vec<Shipment>,
}

/// How much of an order is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Detail {
    Full,
    /// Without shipments: of these, lists show the newest one only, which is part of the order's own row.
    Listed,
}

/// Queries that read an order select its lines as an array of such records.
#[derive(Debug, Clone, PartialEq, sqlx::Type)]
#[sqlx(type_name = "record")]
pub(crate) struct Line {
    pub(crate) product_id: ProductId,
    pub(crate) sku: String,
    pub(crate) title: String,
    pub(crate) quantity: i32,
    pub(crate) price_minor: i64,
    /// Units in shipments. Where an earlier release fulfilled the order, see [`Order::fulfilled`].
    pub(crate) fulfilled: i32,
    pub(crate) returned: i32,
}

/// A fact that is not legal in the state of an order. RPC handlers check this before, and return an error that says more.
#[derive(Debug, thiserror::Error)]
#[error("{event_type} is not possible for an order that is {}", .state.name())]
pub(crate) struct IllegalStep {
    pub(crate) state: State,
    pub(crate) event_type: &'static str,
}

impl Order {
    /// What a fact changes. The first one, that it was placed, is how an order begins.
    pub(crate) fn apply(&mut self, fact: &Fact, at: OffsetDateTime) -> Result<(), IllegalStep> {
        let illegal = || IllegalStep { state: self.state, event_type: fact.to_event(self).event_type() };
        let after = self.state.after(fact).ok_or_else(illegal)?;
        // What a customer may have received is taken back, not cancelled.
        if matches!(fact, Fact::Cancelled { .. }) && !self.shipments.is_empty() {
            return Err(illegal());
        }
        match fact {
            Fact::Reserved => {}
            Fact::Expired => self.exit_reason = "DEADLINE_PASSED".to_owned(),
            Fact::Rejected { reason, .. } | Fact::PaymentFailed { reason } => self.exit_reason.clone_from(reason),
            Fact::Cancelled { reason } => self.exit_reason = reason.as_str_name().to_owned(),
            Fact::Confirmed { payment_id } => self.payment_id = Some(*payment_id),
            Fact::Paid { payment_id } => {
                self.payment_id = Some(*payment_id);
                self.captured = true;
            }
            Fact::Refunded { payment_id, minor } => {
                self.payment_id = Some(*payment_id);
                self.refunded_minor += minor;
            }
            Fact::RefundFailed { minor, .. } => self.refunded_minor -= minor,
            Fact::PartlyFulfilled(parcel) | Fact::Fulfilled(parcel) => self.ship(parcel, at),
            Fact::ItemsReturned(items) => self.take_back(items),
        }
        self.state = after;
        self.version += 1;
        self.updated_at = at;
        Ok(())
    }

    pub(crate) fn total(&self) -> Money {
        Money::new(self.currency.clone(), self.total_minor)
    }

    pub(crate) async fn find(
        db: &mut PgConnection,
        order_id: OrderId,
        owner: Owner,
    ) -> Result<Option<Self>, Unexpected> {
        Ok(Self::find_all(db, &[order_id], owner, Detail::Full).await?.pop())
    }

    pub(crate) async fn lock(
        db: &mut PgConnection,
        order_id: OrderId,
        owner: Owner,
    ) -> Result<Option<Self>, Unexpected> {
        Ok(Self::lock_all(db, &[order_id], owner).await?.pop())
    }

    /// Locks in the order of ids, so that no two transactions wait for each other in a circle. Each id is given once.
    ///
    /// Reads only when it has the locks: a statement that waited for a lock sees the newest row of the order, but lines and
    /// shipments as they were before it waited.
    pub(crate) async fn lock_all(
        db: &mut PgConnection,
        order_ids: &[OrderId],
        owner: Owner,
    ) -> Result<Vec<Self>, Unexpected> {
        sqlx::query!(
            r#"select
               from (select id from unnest($1::uuid[]) as id limit cardinality($1)) as wanted
                 join "order" on "order".order_id = wanted.id
               where coalesce(user_id = $2, true) order by "order".order_id for no key update of "order""#,
            order_ids as &[OrderId],
            owner.filter(),
        )
        .execute(&mut *db)
        .await?;
        Self::find_all(db, order_ids, owner, Detail::Full).await
    }

    /// In the order of ids. Ownership is in the query: somebody else's order is not there.
    ///
    /// The limit and the coalesce only change what Postgres expects: few rows, so that it keeps one plan, by the index.
    /// Otherwise it plans anew for each set, or goes on reading the whole of a table that was small at first.
    pub(crate) async fn find_all(
        db: &mut PgConnection,
        order_ids: &[OrderId],
        owner: Owner,
        detail: Detail,
    ) -> Result<Vec<Self>, Unexpected> {
        let orders = sqlx::query_as!(
            Self,
            r#"select "order".order_id as "order_id: _", user_id as "user_id: _", state as "state: _", version, currency, total_minor,
                 payment_method, payment_id as "payment_id: _", captured, refunded_minor, exit_reason, carrier,
                 tracking_number, returns, expires_at, created_at, updated_at,
                 array(select row (product_id, sku, title, quantity, price_minor, fulfilled, returned) from order_line
                       where order_line.order_id = "order".order_id order by line) as "lines!: _",
                 array(select row (number, carrier, tracking_number, product_ids, quantities, shipped_at) from order_shipment as it
                       where $3 and shipments > 0 and it.order_id = "order".order_id order by number) as "shipments!: _"
               from (select id from unnest($1::uuid[]) as id limit cardinality($1)) as wanted
                 join "order" on "order".order_id = wanted.id
               where coalesce(user_id = $2, true) order by "order".order_id"#,
            order_ids as &[OrderId],
            owner.filter(),
            detail == Detail::Full,
        );
        Ok(orders.fetch_all(db).await?)
    }

    /// The address is personal data, in a row of its own that can be deleted.
    pub(crate) async fn insert(
        &self,
        db: &mut PgConnection,
        address: Option<&proto::ShippingAddress>,
    ) -> Result<(), Unexpected> {
        let lines = &self.lines;
        sqlx::query!(
            r#"with placed as (
                 insert into "order"
                   (order_id, user_id, state, version, currency, total_minor, payment_method, captured, refunded_minor,
                    exit_reason, carrier, tracking_number, shipments, returns, expires_at, created_at, updated_at)
                 values ($1, $2, $3, $4, $5, $6, $7, false, 0, '', '', '', 0, 0, $8, $9, $9)
               ), address as (
                 insert into order_shipping_address (order_id, recipient, lines, city, postal_code, country)
                 select $1, $15::text, $16::text[], $17::text, $18::text, $19::text where $15 is not null
               )
               insert into order_line (order_id, line, product_id, sku, title, quantity, price_minor, fulfilled, returned)
               select $1, line, product_id, sku, title, quantity, price_minor, 0, 0
               from unnest($10::uuid[], $11::text[], $12::text[], $13::integer[], $14::bigint[])
                 with ordinality as asked (product_id, sku, title, quantity, price_minor, line)"#,
            self.order_id as OrderId,
            self.user_id as UserId,
            self.state.name(),
            self.version,
            self.currency,
            self.total_minor,
            self.payment_method,
            self.expires_at,
            self.created_at,
            &column(lines, |line| line.product_id) as &[ProductId],
            &column(lines, |line| line.sku.as_str()) as &[&str],
            &column(lines, |line| line.title.as_str()) as &[&str],
            &column(lines, |line| line.quantity),
            &column(lines, |line| line.price_minor),
            address.map(|it| it.recipient.as_str()),
            address.map(|it| it.lines.as_slice()),
            address.map(|it| it.city.as_str()),
            address.map(|it| it.postal_code.as_str()),
            address.map(|it| it.country.as_str()),
        )
        .execute(db)
        .await?;
        Ok(())
    }

    /// Writes what facts may change. For the limit see [`Self::find_all`].
    pub(crate) async fn save_all(db: &mut PgConnection, orders: &[&Self]) -> Result<(), Unexpected> {
        sqlx::query!(
            r#"update "order" set state = changed.state, version = changed.version, payment_id = changed.payment_id,
                 captured = changed.captured, refunded_minor = changed.refunded_minor,
                 exit_reason = changed.exit_reason, carrier = changed.carrier,
                 tracking_number = changed.tracking_number, shipments = changed.shipments, returns = changed.returns,
                 updated_at = changed.updated_at
               from (select * from unnest($1::uuid[], $2::text[], $3::bigint[], $4::uuid[], $5::boolean[], $6::bigint[],
                   $7::text[], $8::text[], $9::text[], $10::timestamptz[], $11::integer[], $12::integer[])
                   limit cardinality($1))
                 as changed (order_id, state, version, payment_id, captured, refunded_minor, exit_reason, carrier,
                   tracking_number, updated_at, shipments, returns)
               where "order".order_id = changed.order_id"#,
            &column(orders, |order| order.order_id) as &[OrderId],
            &column(orders, |order| order.state.name()) as &[&str],
            &column(orders, |order| order.version),
            &column(orders, |order| order.payment_id) as &[Option<PaymentId>],
            &column(orders, |order| order.captured),
            &column(orders, |order| order.refunded_minor),
            &column(orders, |order| order.exit_reason.as_str()) as &[&str],
            &column(orders, |order| order.carrier.as_str()) as &[&str],
            &column(orders, |order| order.tracking_number.as_str()) as &[&str],
            &column(orders, |order| order.updated_at),
            &column(orders, |order| order.shipments_count()),
            &column(orders, |order| order.returns),
        )
        .execute(db)
        .await?;
        Ok(())
    }

    pub(crate) fn to_proto(&self) -> proto::Order {
        proto::Order {
            order_id: self.order_id.to_string(),
            user_id: self.user_id.to_string(),
            state: self.state.to_proto().into(),
            items: self.lines_to_proto(),
            total: Some(self.total()),
            version: self.version,
            create_time: Some(timestamp(self.created_at)),
            update_time: Some(timestamp(self.updated_at)),
            expire_time: Some(timestamp(self.expires_at)),
            payment: Some(proto::OrderPayment {
                payment_id: self.payment_id.map(|id| id.to_string()).unwrap_or_default(),
                captured: self.captured,
                refunded_minor: self.refunded_minor,
            }),
            shipment: self.newest_shipment(),
            exit_reason: self.exit_reason.clone(),
            shipments: self.shipments.iter().map(|shipment| self.shipment_to_proto(shipment)).collect(),
        }
    }

    pub(crate) fn lines_to_proto(&self) -> Vec<proto::OrderLine> {
        let line = |line: &Line| proto::OrderLine {
            fulfilled_quantity: self.fulfilled(line),
            returned_quantity: line.returned,
            ..line.to_proto(&self.currency)
        };
        self.lines.iter().map(line).collect()
    }
}

impl Line {
    pub(crate) fn to_proto(&self, currency: &str) -> proto::OrderLine {
        proto::OrderLine {
            product_id: self.product_id.to_string(),
            quantity: self.quantity,
            sku: self.sku.clone(),
            title: self.title.clone(),
            unit_price: Some(Money::new(currency, self.price_minor)),
            fulfilled_quantity: 0,
            returned_quantity: 0,
        }
    }
}
